"""`hundredfold track`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, escape
from hundredfold.support.errors import UserError, first_line
from hundredfold.track.trackers import open_tracker, send_run


def main(arguments: Sequence[str]) -> None:
    """Send a run to a tracker."""
    tyro.cli(track_run, prog="hundredfold track", args=arguments)


def track_run(run: Annotated[Path, tyro.conf.Positional], /, to: str) -> None:
    """Send a run, finished or not, to TensorBoard or MLflow; existing entries stay as they are.

    Args:
        run: The run directory.
        to: tensorboard, mlflow, or mlflow:ADDRESS of a server or store. Without an address, MLflow
            uses MLFLOW_TRACKING_URI, or else the file mlflow.db in the current folder.
    """
    found = find_run(run)
    try:
        send_run(found, open_tracker(to))
    except UserError:
        raise
    except Exception as error:  # a tracker's library may raise anything
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{to} did not accept the run: {why}") from error
    console.print(f"{escape(str(found))} was sent to {escape(to)}.")
