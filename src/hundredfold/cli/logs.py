"""What commands that train have in common: how they show it, and who else is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hundredfold.data.dataset import Dataset
from hundredfold.report.report import write_report
from hundredfold.runs.run import Run
from hundredfold.support.distributed import rank
from hundredfold.support.errors import UserError
from hundredfold.track.background import Background
from hundredfold.track.trackers import open_tracker
from hundredfold.training.progress import Display, JsonDisplay


@dataclass(frozen=True)
class Logs:
    """How a training is shown, and where else it is logged."""

    track: tuple[str, ...] = ()
    """Where else to log: tensorboard, mlflow, or mlflow:ADDRESS of a server or store (extras of the
    same names). The run's own files have it all anyway."""
    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Say more: each checkpoint, say."""
    log_json: bool = False
    """One JSON object a line, for other programs: start, epoch, note, end."""

    def display(self) -> Display:
        """Return what shows the training.

        Raises:
            UserError: more than one way is asked for.
        """
        if self.quiet + self.verbose + self.log_json > 1:
            raise UserError("--quiet, --verbose and --log-json exclude each other.")
        if rank():
            return Display(quiet=True)  # the first of several processes shows it
        return JsonDisplay() if self.log_json else Display(self.quiet, verbose=self.verbose)

    def trackers(self, tell: Callable[[str], None]) -> list[Background]:
        """Return who else is told; `tell` takes a warning about each that fails.

        Raises:
            UserError: there is no such tracker.
        """
        names = () if rank() else self.track
        return [Background(name, open_tracker(name), tell) for name in names]


def trained(
    work: Callable[[Sequence[Background]], Run], trackers: Sequence[Background], data: Dataset | str
) -> None:
    """Do a training that tells its trackers, and in the end send them what it leaves.

    Args:
        work: trains.
        trackers: told of the run, and of its report, which is written for them.
        data: as in `write_report`.
    """
    try:
        run = work(trackers)
        if trackers:
            write_report(run, data, lambda _: None)  # the page says what it lacks
    finally:
        for tracker in trackers:
            if tracker.run:  # which may have been interrupted
                tracker.finish(tracker.run)
        for tracker in trackers:
            tracker.close()
