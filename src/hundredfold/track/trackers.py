"""Open experiment trackers by name, and send runs to them.

Trackers only get copies: the run directory is always written first.
"""

from collections.abc import Callable

from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError
from hundredfold.track.base import Tracker
from hundredfold.track.mlflow import MLflow
from hundredfold.track.tensorboard import TensorBoard

TRACKERS: dict[str, Callable[[str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "mlflow:ADDRESS": MLflow,
}
"""Class of the tracker for each form of a name. It takes the address; empty if there is none."""


def open_tracker(name: str) -> Tracker:
    """Return the tracker with a name.

    Args:
        name: `tensorboard`, `mlflow`, or `mlflow:` and the address of a server or store.

    Raises:
        UserError: there is no tracker with that name.
    """
    kind, _, address = name.partition(":")
    form = f"{kind}:ADDRESS" if address else kind
    if form not in TRACKERS:
        raise UserError(f"There is no tracker {name!r}: use one of {', '.join(TRACKERS)}.")
    return TRACKERS[form](address)


def send_run(run: Run, tracker: Tracker) -> None:
    """Send an existing run, finished or not.

    Raises:
        UserError: the run is damaged, or the tracker's extra is not installed.
        Exception: any error of the tracker's library.
    """
    start_tracker(run, tracker)
    tracker.finish(run)


def start_tracker(run: Run, tracker: Tracker) -> None:
    """Send a tracker the start of a run and the epochs that are finished.

    Raises:
        UserError: there is no such run, or it is damaged; the tracker is not called.
    """
    _, history = run.config(), run.history()  # refuses a damaged run first
    tracker.start(run)
    for epoch in history:
        tracker.epoch(epoch)
