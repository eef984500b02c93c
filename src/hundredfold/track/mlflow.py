"""Send a run to MLflow: parameters, metrics and files."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

from hundredfold.data.addresses import without_key
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.folder import CONFIG_FILE
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError, extra
from hundredfold.support.jsonio import to_json
from hundredfold.track.base import epoch_metrics, final_metrics, hyperparameters

EXPERIMENT = "hundredfold"
TAG = "hundredfold.run"
"""Tag with the id of a run, which finds a run that is resumed or sent again."""
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""By default, MLflow keeps trying to reach a dead server for many minutes."""


class MLflow:
    """Writes a run to a store or a server.

    Args:
        address: MLflow's tracking URI; empty for the one that the environment variable
            MLFLOW_TRACKING_URI names, or else the file mlflow.db in the current folder.
    """

    def __init__(self, address: str = "") -> None:
        address = address or os.environ.get("MLFLOW_TRACKING_URI", "")
        self.address = address or "sqlite:///mlflow.db"
        self.client: Any = None
        self.id = ""
        self.sent = 0

    def start(self, run: Run) -> None:
        """Create the run in MLflow, or find it and the last epoch that it has.

        Raises:
            UserError: the extra is not installed.
        """
        self.client = _client(self.address)
        experiment = self._experiment()
        name = run.path.resolve().name
        key = run.environment().get("id", name)  # earlier versions gave their runs no id
        known = self.client.search_runs([experiment], f"tags.`{TAG}` = '{key}'", max_results=1)
        if known:
            self.id = known[0].info.run_id
            points = self.client.get_metric_history(self.id, "train_loss")
            self.sent = max((point.step for point in points), default=0)
        else:
            self.id = self.client.create_run(experiment, run_name=name, tags={TAG: key}).info.run_id
            self._parameters(run)

    def epoch(self, epoch: Epoch) -> None:
        """Send an epoch's metrics, unless MLflow has them."""
        if epoch.epoch > self.sent:
            self._metrics(epoch_metrics(epoch) | {"lr": epoch.lr[-1]}, epoch.epoch)
            self.sent = epoch.epoch

    def finish(self, run: Run) -> None:
        """Send the final metrics and the files."""
        if run.finished:
            self._metrics(final_metrics(run), self.sent)
        config = run.config()
        public = dataclasses.replace(config, data=without_key(config.data))
        for path in run.published_files():
            _refuse_link(path)
            if path.name == CONFIG_FILE and public != config:
                self.client.log_text(self.id, to_json(public), CONFIG_FILE)
            else:
                self.client.log_artifact(self.id, str(path))
        if run.figures.is_dir():
            for path in (run.figures, *run.figures.rglob("*")):
                _refuse_link(path)
            self.client.log_artifacts(self.id, str(run.figures), run.figures.name)
        self.client.set_terminated(self.id, "FINISHED" if run.finished else "KILLED")

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        return str(found.experiment_id if found else self.client.create_experiment(EXPERIMENT))

    def _parameters(self, run: Run) -> None:
        from mlflow.entities import Param  # noqa: PLC0415  # an extra

        values = hyperparameters(run).items()
        given = [Param(name, str(value)) for name, value in values if value != ""]
        self.client.log_batch(self.id, params=given)

    def _metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415  # an extra

        now = time.time_ns() // 10**6
        self.client.log_batch(self.id, [Metric(k, v, now, step) for k, v in values.items()])


def _refuse_link(path: Path) -> None:
    """Refuse links: a run from somebody else could have a private file of this machine sent."""
    if path.is_symlink():
        raise UserError(
            f"{path} is a link. The file that it points to is not sent, because it may be private. "
            "Remove the link, and send the run again."
        )


def _client(address: str) -> Any:
    """Return a client that logs no warnings and soon gives up on a dead server."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    with extra("mlflow", "MLflow needs"):
        import mlflow  # noqa: PLC0415  # an extra
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(address)
