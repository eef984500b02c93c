"""`hundredfold resume`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from hundredfold.cli.logs import Logs, trained
from hundredfold.training.resume import last_unfinished_run, resume


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a run that was interrupted: on a CPU, to the bits it would have had.

    Its configuration stays as it was; a finished run has nothing to go on with.
    """

    run: Annotated[str, tyro.conf.Positional] = "last"
    """The run directory; `last` for the newest unfinished one in runs/."""
    data: str = ""
    """Where the data is now, as in train; empty for where the run found it."""
    logs: tyro.conf.OmitArgPrefixes[Logs] = field(default_factory=Logs)
    """The terminal."""


def main(arguments: Sequence[str]) -> None:
    """Go on with a run."""
    options = tyro.cli(ResumeOptions, prog="hundredfold resume", args=arguments)
    run = last_unfinished_run("runs") if options.run == "last" else options.run
    display = options.logs.display()
    trained(
        lambda trackers: resume(run, options.data, display=display, trackers=trackers),
        options.logs.trackers(display.note),
        options.data,
    )
