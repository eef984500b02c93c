"""Trackers: the data that an MLflow server, an MLflow store and TensorBoard's reader get."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.making import Train, unfinish
from support.stopping import Stopper

from hundredfold import Config, Dataset, Epoch, Run, UserError, resume, train
from hundredfold.cli.log_options import train_with_trackers
from hundredfold.cli.main import main
from hundredfold.track.background import Background
from hundredfold.track.mlflow import MLflow
from hundredfold.track.tensorboard import TensorBoard
from hundredfold.track.trackers import open_tracker, send_run

pytestmark = pytest.mark.filterwarnings("ignore")  # the trackers' libraries warn


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination"]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *store, str(folder / "files")],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check(client: Any, run: Run) -> None:
    """Compare the run in MLflow with the run directory."""
    (experiment,) = client.search_experiments(filter_string="name = 'hundredfold'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.path.name
    assert found.info.status == "FINISHED"
    assert found.data.params["lr"] == str(run.config().lr)
    assert found.data.params["widths"] == str(run.config().widths)
    assert found.data.metrics["test_fine_top1"] == run.metrics()["test"]["fine_top1"]
    points = client.get_metric_history(found.info.run_id, "validation_fine_top1")
    assert [(p.step, p.value) for p in points] == [
        (epoch.epoch, epoch.validation["fine_top1"]) for epoch in run.history()
    ]
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"config.json", "weights.safetensors", "history.jsonl", "figures"} <= names
    path = client.download_artifacts(found.info.run_id, "weights.safetensors")
    assert Path(path).read_bytes() == (run.path / "weights.safetensors").read_bytes()


@pytest.mark.long
def test_mlflow_server_gets_every_epoch_during_training_and_only_once(
    server: str, tiny: Dataset, tiny_config: Config
) -> None:
    mlflow = pytest.importorskip("mlflow")
    warnings: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        first = Background("mlflow", MLflow(server), warnings.append)
        train(tiny_config, tiny, display=Stopper(8), trackers=[first])
    first.close()
    (path,) = Path(tiny_config.out).iterdir()
    tracker = Background("mlflow", MLflow(server), warnings.append)
    run = resume(path, tiny, quiet=True, trackers=[tracker])
    tracker.finish(run)
    tracker.close()
    assert warnings == []
    client = mlflow.MlflowClient(server)
    check(client, run)
    send_run(run, open_tracker(f"mlflow:{server}"))  # sent again, nothing is stored twice
    check(client, run)


def test_mlflow_store_needs_no_server(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow = pytest.importorskip("mlflow")
    assert main(["track", str(run), "--to", "mlflow"]) == 0
    assert f"{run} was sent to mlflow" in capsys.readouterr().out
    check(mlflow.MlflowClient("sqlite:///mlflow.db"), run)


def test_runs_of_one_name_stay_apart(trained: Train) -> None:
    mlflow = pytest.importorskip("mlflow")
    runs = [trained(seed=seed, out=f"{seed}").path for seed in (0, 1)]
    for number, path in enumerate(runs):
        same = path.rename(path.with_name("baseline"))
        send_run(Run(same), open_tracker("mlflow:sqlite:///apart.db"))
        found = mlflow.MlflowClient("sqlite:///apart.db").search_runs(["1"])
        assert len(found) == number + 1


def test_tensorboard_reads_the_written_events(tiny: Dataset, tiny_config: Config) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoard()
    run = train(tiny_config, tiny, quiet=True, trackers=[tracker])
    tracker.finish(run)
    for _ in range(2):
        found = EventAccumulator(str(run.path / "tensorboard"))
        found.Reload()
        history = run.history()
        for name, want in (
            ("epoch/validation_fine_top1", [epoch.validation["fine_top1"] for epoch in history]),
            ("step/loss", [loss for epoch in history for loss in epoch.loss]),
            ("step/lr", [lr for epoch in history for lr in epoch.lr]),
            ("test_fine_top1", [run.metrics()["test"]["fine_top1"]]),
        ):
            assert [event.value for event in found.Scalars(name)] == pytest.approx(want)
        assert found.Images("figures/curves")[0].width == 1800
        assert "_hparams_/session_start_info" in found.summary_metadata
        send_run(run, TensorBoard())  # sent again, it is unchanged


class HangingTracker:
    """A tracker that never responds."""

    def start(self, run: Run) -> None:
        time.sleep(60)

    def epoch(self, epoch: Epoch) -> None:
        raise AssertionError("called again after its failure")

    def finish(self, run: Run) -> None:
        raise AssertionError("called again after its failure")


class FailingTracker(HangingTracker):
    """A tracker that raises an error."""

    def start(self, run: Run) -> None:
        raise ValueError("no such place\nmore")


@pytest.mark.parametrize(
    ("tracker", "reason"),
    [
        (HangingTracker(), "it has not responded for 1 s"),
        (FailingTracker(), "ValueError: no such place."),
    ],
)
def test_failing_tracker_causes_one_warning(
    tracker: Any,
    reason: str,
    tiny: Dataset,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hundredfold.track.background.TRACKER_TIMEOUT", 1.0)
    warnings: list[str] = []
    background = Background("x", tracker, warnings.append)
    run = train(tiny_config, tiny, quiet=True, trackers=[background])
    background.finish(run)
    background.close()
    assert len(warnings) == 1
    assert reason in warnings[0]
    assert f"hundredfold track {run} --to x" in warnings[0]
    assert len(run.history()) == 2
    assert run.finished


def test_slow_tracker_gets_each_epoch_once(tiny: Dataset, tiny_config: Config) -> None:
    class SlowTracker(HangingTracker):
        def __init__(self) -> None:
            self.epochs: list[int] = []

        def start(self, run: Run) -> None:
            while not run.history():  # until training is ahead of it
                time.sleep(0.01)

        def epoch(self, epoch: Epoch) -> None:
            self.epochs.append(epoch.epoch)

    slow, warnings = SlowTracker(), list[str]()
    background = Background("slow", slow, warnings.append)
    train(tiny_config, tiny, quiet=True, trackers=[background])
    background.close()
    assert slow.epochs == [1, 2]
    assert warnings == []


SMALL = ["--data", "sample", "--widths", "8", "8", "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never responds."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.long
def test_unreachable_and_hanging_servers_do_not_delay_training(
    silent: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr("hundredfold.track.background.TRACKER_TIMEOUT", 2.0)
    trackers = ["mlflow:http://127.0.0.1:9", f"mlflow:http://127.0.0.1:{silent}"]
    assert main(["train", *SMALL, "--track", *trackers]) == 0
    out = capsys.readouterr().out
    assert out.count("did not receive the whole run") == 2
    run = Run(next(Path("runs").iterdir()))
    assert run.finished
    assert (run.path / "report.html").exists()


def test_no_key_of_an_address_is_sent(tiny: Dataset, tiny_config: Config, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    data = dataclasses.replace(tiny, source="https://me:SECRET@host/pets.zip?key=SECRET")
    run = train(tiny_config, data, quiet=True)
    assert "SECRET" in (run.path / "config.json").read_text()
    send_run(run, open_tracker("mlflow:sqlite:///keys.db"))
    client = mlflow.MlflowClient("sqlite:///keys.db")
    (found,) = client.search_runs([client.get_experiment_by_name("hundredfold").experiment_id])
    sent = tmp_path / "sent"
    sent.mkdir()
    client.download_artifacts(found.info.run_id, "", str(sent))
    assert '"data": "https://host/pets.zip"' in (sent / "config.json").read_text()
    assert not any(b"SECRET" in file.read_bytes() for file in sent.rglob("*.*"))
    assert "SECRET" not in str(found.data.to_dictionary())


@pytest.mark.parametrize("to", ["tensorboard", "mlflow"])
def test_folder_that_is_no_run_is_refused_and_not_changed(
    to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tensorboard").mkdir()
    Path("tensorboard/mine").write_text("x")
    for path in ("runs/typo", "."):
        assert main(["track", path, "--to", to]) == 2
        assert "error: " in capsys.readouterr().err
    assert [entry.name for entry in Path().iterdir()] == ["tensorboard"]
    assert Path("tensorboard/mine").exists()


def test_interrupted_training_is_not_marked_as_running(tiny: Dataset, tiny_config: Config) -> None:
    mlflow = pytest.importorskip("mlflow")
    tracker = Background("mlflow", MLflow("sqlite:///cut.db"), print)

    def work(trackers: Sequence[Background]) -> Run:
        return train(tiny_config, tiny, display=Stopper(8), trackers=trackers)

    with pytest.raises(KeyboardInterrupt):
        train_with_trackers(work, [tracker], tiny)
    client = mlflow.MlflowClient("sqlite:///cut.db")
    (found,) = client.search_runs([client.get_experiment_by_name("hundredfold").experiment_id])
    assert found.info.status == "KILLED"


def test_errors_of_unknown_and_unreachable_trackers(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", *SMALL, "--track", "abacus"]) == 2
    error = capsys.readouterr().err
    assert "There is no tracker 'abacus': use one of tensorboard, mlflow, mlflow:ADDR" in error
    with pytest.raises(UserError, match="There is no tracker 'tensorboard:here'"):
        open_tracker("tensorboard:here")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["track", str(run), "--to", "mlflow:http://127.0.0.1:9"]) == 2
    error = capsys.readouterr().err
    assert "mlflow:http://127.0.0.1:9 did not accept the run" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_missing_extras_are_named(
    name: str, module: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=rf"pip install 'hundredfold\[{name}\]'"):
        send_run(run, open_tracker(name))
    warnings: list[str] = []
    tracker = Background(name, open_tracker(name), warnings.append)
    tracker.start(run)
    tracker.close()
    assert len(warnings) == 1


def test_unfinished_run_can_be_sent(tiny: Dataset, tiny_config: Config) -> None:
    mlflow = pytest.importorskip("mlflow")
    run = train(dataclasses.replace(tiny_config), tiny, quiet=True)
    unfinish(run)
    send_run(run, open_tracker("mlflow:sqlite:///other.db"))
    client = mlflow.MlflowClient("sqlite:///other.db")
    (found,) = client.search_runs([client.get_experiment_by_name("hundredfold").experiment_id])
    assert found.info.status == "KILLED"
    assert found.data.metrics["train_loss"] == run.history()[-1].train_loss
