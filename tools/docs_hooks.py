"""Hooks of mkdocs: fill in the help of the commands and CONTRIBUTING.md, and name source files."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from hundredfold.cli.main import COMMANDS, main

HELP = "<!-- the help of every command -->"
CONTRIBUTING = "<!-- CONTRIBUTING.md -->"
OUT = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
"""A link to a file of the source that is not a page of the site."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page: placeholders filled in, source files named instead of linked."""
    if HELP in markdown:
        markdown = markdown.replace(HELP, "\n".join(section(name) for name in COMMANDS))
    if CONTRIBUTING in markdown:
        text = Path("CONTRIBUTING.md").read_text().replace("](docs/", "](")
        markdown = markdown.replace(CONTRIBUTING, text)
    return OUT.sub(named, markdown)


def named(link: re.Match[str]) -> str:
    """Return the text of a link to a source file, followed by the name of the file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    text, path = link.groups()
    return f"{text} (`{Path(path).resolve(strict=True).relative_to(Path.cwd())}`)"


def section(name: str) -> str:
    """Return the section of a command: its name and its help, as the terminal shows it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([name, "--help"])
    return f"## {name}\n\n```text\n{said.getvalue().strip()}\n```\n"
