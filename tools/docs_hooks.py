"""What mkdocs asks while it builds the site: the commands' help, and links out of the folder."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from hundredfold.cli.main import COMMANDS, main

HELP = "<!-- the help of every command -->"
OUT = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
"""A link to a file of the source that is no page of the site."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's text with the help filled in, and files of the source named, not linked."""
    if HELP in markdown:
        markdown = markdown.replace(HELP, "\n".join(section(name) for name in COMMANDS))
    return OUT.sub(named, markdown)


def named(link: re.Match[str]) -> str:
    """Return the text of a link to the source with the file's name behind it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    text, path = link.groups()
    return f"{text} (`{Path(path).resolve(strict=True).relative_to(Path.cwd())}`)"


def section(name: str) -> str:
    """Return a command's section: what it is for, and its help as the terminal has it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([name, "--help"])
    return f"## {name}\n\n```text\n{said.getvalue().strip()}\n```\n"
