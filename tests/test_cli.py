"""The command line: training, evaluation, errors, help, signals."""

import dataclasses
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.stopping import Stopper

from hundredfold import Config, Run, __version__
from hundredfold.cli.main import main
from hundredfold.data import cifar100

SMALL = ["--data", "sample", "--widths", "8", "8", "--epochs", "1", "--device", "cpu"]


def test_train_then_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL]) == 0
    out = capsys.readouterr().out
    path = re.search(r"^Run +(runs/fast-\S+)$", out, re.MULTILINE)
    assert path
    for words in (
        "val fine",
        "val coarse",
        "images/s",
        "top-5 fine",
        "flip TTA",
        "calibrated on 100 validation pictures",
        "Next ",
    ):
        assert words in out
    assert Run(Path(path[1])).config().widths == (8, 8)
    assert main(["evaluate", path[1]]) == 0
    again = capsys.readouterr().out
    assert "equal the recorded ones to the last digit" in again
    rows = [line for line in out.splitlines() if line.startswith((" top-", " loss", " calib"))]
    assert len(rows) == 5
    assert all(row in again for row in rows)


@pytest.mark.long
def test_a_budget_without_a_recipe_chooses_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--budget", "9s", *SMALL[:5], "--device", "cpu"]) == 0
    run = Run(next(Path("runs").iterdir()))
    assert run.config().name in ("quick", "fast", "medium", "strong")
    assert run.config().widths == (8, 8)  # flags change every recipe
    assert "9s: about " in capsys.readouterr().out
    assert run.history()[-1].progress == 1


def test_evaluate_says_that_a_run_is_unfinished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.cli.log_options.Display", lambda *_, **__: Stopper(3))
    assert main(["train", *SMALL]) == 130
    path = next(Path("runs").iterdir())
    assert main(["evaluate", str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"not finished: these are its weights after 0\.\d+ of 1 epoch\.", out)
    for command in (["predict", str(path), "--test", "0"], ["explain", str(path), "--test", "0"]):
        assert main(command) == 0
        assert "is not finished: its last checkpoint is used" in capsys.readouterr().err
    assert main(["export", str(path)]) == 2
    assert "is not finished. To finish it: hundredfold resume" in capsys.readouterr().err
    assert not (path / "export").exists()


def test_an_unknown_tracker_is_refused_before_the_data_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--data", "missing-folder", "--track", "tensorbord"]) == 2
    assert "There is no tracker 'tensorbord'" in capsys.readouterr().err


def test_evaluate_reports_different_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL]) == 0
    run = Run(next(Path("runs").iterdir()))
    metrics = run.metrics()
    for change, why in ((1e-6, "come from rounding"), (0.25, "more than rounding")):
        flip = metrics["test_flip"] | {"loss": metrics["test_flip"]["loss"] + change}
        run.save_metrics(metrics | {"test_flip": flip})
        assert main(["evaluate", str(run)]) == 1
        err = capsys.readouterr().err
        assert f"DIFFER from the recorded ones: loss of test_flip by {change:.2g}. " in err
        assert why in err


def test_the_tutorial_warns_that_it_uses_the_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    widths = ["--widths", "4", "4", "4", "4"]
    assert main(["train", "tutorial", *SMALL[:2], *widths, "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "evaluated on the TEST set" in out
    assert "test coarse" in out
    assert "top-1 coarse" in out
    assert "top-1 fine" not in out


def test_without_data_and_network_the_sample_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar100, "URL", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    assert main(["train", *SMALL[2:]]) == 0
    out = capsys.readouterr().out
    assert "The small sample that comes with hundredfold is used instead" in out
    assert main(["train", "--data", "cifar100"]) == 2
    assert capsys.readouterr().err.startswith("error: Cannot download http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian", "no command 'trian'.*Did you mean train"),
        ("train fsat", "no recipe 'fsat'.*Did you mean fast"),
        ("train --lr 0", "--lr is 0.0, but must be above 0"),
        ("train --device abacus", "--device abacus must be one of"),
        ("train --data nowhere", "There is no file or folder nowhere"),
        ("train --data kaggle:x", "not of the form kaggle:OWNER/NAME"),
        ("evaluate nowhere", "no run at nowhere"),
    ],
)
def test_mistakes_are_explained(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", ["train --lr abc", "train --colour red", "evaluate"])
def test_wrong_flags_exit_with_code_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2


@pytest.mark.parametrize("arguments", ["train --help", "train tutorial --help", "evaluate --help"])
def test_help_shows_every_flag_with_its_default(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 0
    out = capsys.readouterr().out
    if "train" in arguments:
        for field in dataclasses.fields(Config):
            assert re.search(rf"--{field.name.replace('_', '-')}[ ,]", out)
        assert f"(default: {64 if 'tutorial' in arguments else 512})" in out


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert "hundredfold train " in out
    assert "tutorial-400" in out
    assert re.search(rf"^hundredfold {re.escape(__version__)}$", out, re.MULTILINE)
    assert re.match(r"\d", __version__)


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m hundredfold --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_not_an_error(closed: str) -> None:
    command = f"{sys.executable} -m hundredfold runs {closed}"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 2  # no folder runs
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "module", ["hundredfold.support.starting", "numpy", "hundredfold.cli.main"]
)
def test_ctrl_c_during_imports_prints_no_traceback(module: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    command = [sys.executable, "-X", "importtime", "-m", "hundredfold", "runs"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while not process.stderr.readline().rstrip().endswith(f" {module}"):
            pass
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "Interrupted.\n" in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_keeps_its_results(number: int, code: int, tmp_path: Path) -> None:
    python = [sys.executable, "-X", "importtime"]  # prints the imported modules to standard error
    command = [*python, "-m", "hundredfold", "train", *SMALL[:5], "--epochs", "500"]
    with (tmp_path / "error").open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
    runs, deadline = tmp_path / "runs", time.monotonic() + 120
    while not list(runs.glob("*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    error = (tmp_path / "error").read_text()
    assert process.returncode == code
    assert ("Interrupted" in error) == (code == 130)
    assert "Traceback" not in error
    assert "hundredfold.training.loop" in error
    assert "torch._dynamo" not in error  # a compiler that takes 1.4 s to import and is not needed
    run = Run(next(path.relative_to(tmp_path) for path in runs.iterdir()))
    assert re.search(rf"To continue: \S+ resume {run}", output)
    assert len(run.history()) >= 1
    assert not run.finished
    assert run.newest_checkpoint()
    run.model()
    assert not list(run.path.glob(".*"))
