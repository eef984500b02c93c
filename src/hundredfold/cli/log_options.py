"""The options of train and resume for the terminal's output and for trackers."""

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
class LogOptions:
    """What the terminal shows of a training, and which trackers record it."""

    track: tuple[str, ...] = ()
    """Trackers to which the run is also sent: tensorboard, mlflow, or mlflow:ADDRESS for a server
    or store. To install what they need: pip install 'hundredfold[tensorboard]' or
    'hundredfold[mlflow]'. The run directory always holds everything."""
    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Print more details, such as each checkpoint."""
    log_json: bool = False
    """Print one JSON object per line, for other programs: events start, epoch, note and end."""

    def display(self) -> Display:
        """Return the display of the training.

        Raises:
            UserError: the options contradict each other, or there is no such tracker.
        """
        for name in self.track:  # before long work
            open_tracker(name)
        if self.quiet + self.verbose + self.log_json > 1:
            raise UserError("Give only one of --quiet, --verbose and --log-json.")
        if rank():
            return Display(quiet=True)  # the first of several processes prints
        return JsonDisplay() if self.log_json else Display(self.quiet, verbose=self.verbose)

    def trackers(self, tell: Callable[[str], None]) -> list[Background]:
        """Return the trackers.

        Args:
            tell: called with a warning if a tracker fails.

        Raises:
            UserError: there is no such tracker.
        """
        names = () if rank() else self.track
        return [Background(name, open_tracker(name), tell) for name in names]


def train_with_trackers(
    work: Callable[[Sequence[Background]], Run], trackers: Sequence[Background], data: Dataset | str
) -> None:
    """Train, and send the finished run and its report to the trackers.

    Args:
        work: trains with the trackers, and returns the run.
        trackers: the trackers; the report is written only if there are any.
        data: the data for the report, as in `write_report`.
    """
    try:
        run = work(trackers)
        if trackers:
            write_report(run, data, lambda _: None)  # the page itself says what is missing
    finally:
        for tracker in trackers:
            if tracker.run:  # also a run that was interrupted
                tracker.finish(tracker.run)
        for tracker in trackers:
            tracker.close()
