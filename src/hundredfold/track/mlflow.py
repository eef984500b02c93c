"""A run in MLflow: parameters, metrics, files."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError, extra
from hundredfold.track.base import epoch_metrics, final_metrics

EXPERIMENT = "hundredfold"
TAG = "hundredfold.run"
"""Holds the run directory's name: by it a run is found again that was resumed, or is sent twice."""
FILES = (
    "config.json", "environment.json", "model.json", "weights.safetensors", "history.jsonl",
    "metrics.json", "report.html",
)  # fmt: skip
"""Artifacts, where they are there; beside the figures."""
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""MLflow alone would ask a dead server for many minutes."""


class MLflow:
    """Writes to a store or server.

    Args:
        address: as MLflow's tracking URI; empty for what the environment variable
            MLFLOW_TRACKING_URI names, else the file mlflow.db here.
    """

    def __init__(self, address: str = "") -> None:
        found = address or os.environ.get("MLFLOW_TRACKING_URI", "")
        self.address = found or "sqlite:///mlflow.db"
        self.client: Any = None
        self.id = ""
        self.sent = 0

    def start(self, run: Run) -> None:
        """Make the run there, or find it again, with what it has already.

        Raises:
            UserError: the extra is not installed.
        """
        self.client = _client(self.address)
        experiment = self._experiment()
        name = run.path.resolve().name
        known = self.client.search_runs([experiment], f"tags.`{TAG}` = '{name}'", max_results=1)
        if known:
            self.id = known[0].info.run_id
            points = self.client.get_metric_history(self.id, "train_loss")
            self.sent = max((point.step for point in points), default=0)
        else:
            self.id = self.client.create_run(
                experiment, run_name=name, tags={TAG: name}
            ).info.run_id
            self._parameters(run)

    def epoch(self, epoch: Epoch) -> None:
        """Send an epoch's metrics, if they are not there yet."""
        if epoch.epoch > self.sent:
            self._metrics(epoch_metrics(epoch) | {"lr": epoch.lr[-1]}, epoch.epoch)
            self.sent = epoch.epoch

    def finish(self, run: Run) -> None:
        """Send the final metrics and the files."""
        if run.finished:
            self._metrics(final_metrics(run), self.sent)
        for path in (run.path / name for name in FILES):
            if path.exists():
                _refuse_link(path)
                self.client.log_artifact(self.id, str(path))
        if (figures := run.path / "figures").is_dir():
            for path in (figures, *figures.rglob("*")):
                _refuse_link(path)
            self.client.log_artifacts(self.id, str(figures), "figures")
        self.client.set_terminated(self.id, "FINISHED" if run.finished else "KILLED")

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        return str(found.experiment_id if found else self.client.create_experiment(EXPERIMENT))

    def _parameters(self, run: Run) -> None:
        from mlflow.entities import Param  # noqa: PLC0415  # an extra

        values = dataclasses.asdict(run.config())
        given = [Param(name, str(value)) for name, value in values.items() if value != ""]
        self.client.log_batch(self.id, params=given)

    def _metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415  # an extra

        now = time.time_ns() // 10**6
        self.client.log_batch(self.id, [Metric(k, v, now, step) for k, v in values.items()])


def _refuse_link(path: Path) -> None:
    """Refuse to send what a link in a run names: the run may be somebody else's, the file mine."""
    if path.is_symlink():
        raise UserError(f"{path} is a link, so what it names is not sent: remove it.")


def _client(address: str) -> Any:
    """Return a client that says nothing and does not try for ever."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    with extra("mlflow", "MLflow needs"):
        import mlflow  # noqa: PLC0415  # an extra
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(address)
