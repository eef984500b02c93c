"""The interface of a tracker, and the numbers that trackers get."""

import dataclasses
from typing import Any, Protocol

from hundredfold.data.addresses import without_key
from hundredfold.metrics.scores import VIEWS
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run


class Tracker(Protocol):
    """An experiment tracker."""

    def start(self, run: Run) -> None:
        """Record that a run starts or is resumed; its previous epochs are sent next."""

    def epoch(self, epoch: Epoch) -> None:
        """Record a finished epoch."""

    def finish(self, run: Run) -> None:
        """Record the final metrics, the figures, the weights and the report."""


def hyperparameters(run: Run) -> dict[str, Any]:
    """Return a run's configuration by field, without the key that an address may hold."""
    config = run.config()
    return dataclasses.asdict(config) | {"data": without_key(config.data)}


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """Return the numbers that trackers plot for an epoch."""
    training = {"train_loss": epoch.train_loss, "images_per_second": epoch.images_per_second}
    return training | {f"validation_{name}": value for name, value in epoch.validation.items()}


def final_metrics(run: Run) -> dict[str, float]:
    """Return a finished run's test metrics, single view and with flip TTA, and its seconds."""
    metrics = run.metrics()
    test = {f"{view}_{key}": value for view in VIEWS for key, value in metrics[view].items()}
    return test | {"seconds": metrics["seconds"]}
