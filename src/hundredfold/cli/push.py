"""`hundredfold push`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.export.hub import push, write_folder
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, escape
from hundredfold.support.files import expanded


@dataclass(frozen=True)
class PushOptions:
    """Put a finished run on the Hugging Face Hub: its model, with a card of what it reaches."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    name: Annotated[str, tyro.conf.Positional]
    """OWNER/NAME of the model on the Hub."""
    private: bool = False
    """Seen by its owner alone, where it is made."""
    folder: str = ""
    """Write what would be pushed into this folder, and push nothing."""


def main(arguments: Sequence[str]) -> None:
    """Push a run."""
    options = tyro.cli(PushOptions, prog="hundredfold push", args=arguments)
    run = find_run(options.run)
    if options.folder:
        written = write_folder(run, options.name, expanded(options.folder))
        console.print(f"Written  {escape(str(written))}")
        return
    console.print(f"Pushed  {escape(push(run, options.name, private=options.private))}")
