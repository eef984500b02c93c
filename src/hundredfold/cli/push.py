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
    """Publish the model of a finished run on the Hugging Face Hub, with a model card."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the model on the Hub: OWNER/NAME."""
    private: bool = False
    """Make a new repository private."""
    folder: str = ""
    """Write the files into this folder instead of publishing them."""


def main(arguments: Sequence[str]) -> None:
    """Publish a run."""
    options = tyro.cli(PushOptions, prog="hundredfold push", args=arguments)
    run = find_run(options.run)
    if options.folder:
        written = write_folder(run, options.name, expanded(options.folder))
        console.print(f"Written  {escape(str(written))}")
        return
    console.print(f"Pushed  {escape(push(run, options.name, private=options.private))}")
