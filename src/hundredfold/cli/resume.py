"""`hundredfold resume`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from hundredfold.cli.log_options import LogOptions, train_with_trackers
from hundredfold.training.resume import last_unfinished_run, resume


@dataclass(frozen=True)
class ResumeOptions:
    """Continue an interrupted run where it stopped.

    On a CPU, the result is bit for bit the same as without the interruption. The run keeps its
    configuration. A finished run cannot be resumed.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = "last"
    """The run directory; `last` for the newest unfinished run in runs/."""
    data: str = ""
    """Where the data is now, as --data of train. Empty for the place recorded in the run."""
    logs: tyro.conf.OmitArgPrefixes[LogOptions] = field(default_factory=LogOptions)
    """What the terminal shows, and which trackers record the run."""


def main(arguments: Sequence[str]) -> None:
    """Continue a run."""
    options = tyro.cli(ResumeOptions, prog="hundredfold resume", args=arguments)
    run = last_unfinished_run("runs") if options.run == "last" else options.run
    display = options.logs.display()
    train_with_trackers(
        lambda trackers: resume(run, options.data, display=display, trackers=trackers),
        options.logs.trackers(display.note),
        options.data,
    )
