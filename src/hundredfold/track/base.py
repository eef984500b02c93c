"""What every tracker is told, and the numbers in it."""

from typing import Protocol

from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run


class Tracker(Protocol):
    """Who is told of a run."""

    def start(self, run: Run) -> None:
        """Take note of a run that begins, or goes on; its epochs so far are told next."""

    def epoch(self, epoch: Epoch) -> None:
        """Take note of an epoch that has ended."""

    def finish(self, run: Run) -> None:
        """Take note of the final metrics, the figures, the weights and the report."""


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """Return what is plotted of an epoch."""
    found = {"train_loss": epoch.train_loss, "images_per_second": epoch.images_per_second}
    return found | {f"validation_{name}": value for name, value in epoch.validation.items()}


def final_metrics(run: Run) -> dict[str, float]:
    """Return the test metrics of a finished run, single view and with flips, and its seconds."""
    metrics = run.metrics()
    views = {view: metrics[view] for view in ("test", "test_flip")}
    found = {f"{view}_{name}": v for view, values in views.items() for name, v in values.items()}
    return found | {"seconds": metrics["seconds"]}
