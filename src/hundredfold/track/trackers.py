"""Telling others how a run comes along: TensorBoard, MLflow. The run's own files come first."""

from collections.abc import Callable

from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError
from hundredfold.track.background import Background
from hundredfold.track.base import Tracker
from hundredfold.track.mlflow import MLflow
from hundredfold.track.tensorboard import TensorBoard

__all__ = ["Background", "MLflow", "TensorBoard", "Tracker", "begin", "open_tracker", "send"]


TRACKERS: dict[str, Callable[[str], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def open_tracker(name: str) -> Tracker:
    """Return the tracker of a name.

    Args:
        name: `tensorboard`, `mlflow`, or `mlflow:` and the address of a server or store.

    Raises:
        UserError: there is none of that name.
    """
    kind, _, address = name.partition(":")
    if kind not in TRACKERS or (address and kind != "mlflow"):
        raise UserError(
            f"There is no tracker {name!r}: take tensorboard, mlflow or mlflow:ADDRESS."
        )
    return TRACKERS[kind](address)


def send(run: Run, tracker: Tracker) -> None:
    """Send a run that is there already, as far as it has come.

    Raises:
        UserError: the run is damaged, or the tracker's extra is not installed.
        Exception: whatever the tracker's library raises where it fails.
    """
    begin(run, tracker)
    tracker.finish(run)


def begin(run: Run, tracker: Tracker) -> None:
    """Tell a tracker of a run and of the epochs that it has by now.

    Raises:
        UserError: there is no such run, or it is damaged: the tracker is told nothing then.
    """
    _, history = run.config(), run.history()
    tracker.start(run)
    for epoch in history:
        tracker.epoch(epoch)
