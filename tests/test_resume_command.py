"""The commands resume, reproduce and train --resume, and the options for logs."""

import json
from collections.abc import Sequence

import pytest
from support.making import update_digests
from support.stopping import Stopper, interrupted

from hundredfold import Config, Dataset, UserError, reproduce, train
from hundredfold.cli.main import main
from hundredfold.training.resume import last_unfinished_run


def say(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code of a command, and everything that it wrote."""
    code = main(arguments)
    return code, "".join(capsys.readouterr())


SMALL = ("--data", "sample", "--widths", "8", "8", "--epochs", "1", "--device", "cpu")


def test_commands_that_resume_and_reproduce(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert say(["resume"], capsys) == (
        2,
        "error: There is no folder runs, so there is no run to resume.\n",
    )
    with monkeypatch.context() as patch:
        patch.setattr("hundredfold.cli.log_options.Display", lambda *_, **__: Stopper(3))
        assert say(["train", *SMALL], capsys)[0] == 130
    run = last_unfinished_run("runs")
    code, out = say(["reproduce", str(run)], capsys)
    assert code == 2
    assert "is not finished" in out
    code, out = say(["train", "fast", "--resume", str(run)], capsys)
    assert code == 2
    assert "keeps its recipe" in out
    code, out = say(["train", "--resume", str(run), "--log-json"], capsys)
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "end"]
    assert events[0]["run"] == events[2]["run"] == str(run)
    assert events[1]["train_loss"] == run.history()[0].train_loss
    assert events[2]["metrics"] == run.metrics()
    code, out = say(["reproduce", str(run)], capsys)
    assert code == 0
    assert "epoch 1: the same" in out
    assert "was reproduced to the bit" in out
    assert say(["resume"], capsys) == (2, "error: There is no unfinished run in runs.\n")


def test_options_for_logs(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(["train", *SMALL, "--quiet"], capsys) == (0, "")
    assert say(["train", *SMALL, "--quiet", "--verbose"], capsys)[0] == 2
    code, out = say(["train", *SMALL, "--verbose", "--checkpoint", "2 steps"], capsys)
    assert code == 0
    assert "checkpoint at step 2" in out


def test_reproduce_names_the_first_difference(tiny: Dataset, tiny_config: Config) -> None:
    run = train(tiny_config, tiny, quiet=True)
    parts = list(reproduce(run, tiny))
    assert [part.what for part in parts] == ["epoch 1", "epoch 2", "weights", "test predictions"]
    assert not any(part.difference for part in parts)
    history = run.history()
    was, history[1].loss[2] = history[1].loss[2], 9.0
    run.save_history(history)
    update_digests(run)
    parts = list(reproduce(run, tiny))
    assert parts[0].difference == ""
    assert parts[1].difference == f"the loss of step 3 was 9.0, and is {was} now"
    with pytest.raises(UserError, match="it cannot be repeated exactly"):
        config = json.loads((run.path / "config.json").read_text()) | {"budget": "9s"}
        (run.path / "config.json").write_text(json.dumps(config))
        update_digests(run)
        list(reproduce(run, tiny))


def test_last_names_the_newest_unfinished_run(tiny: Dataset, tiny_config: Config) -> None:
    runs = [interrupted(tiny_config, tiny, 1) for _ in range(2)]
    for run, started in zip(runs, ("2026-01-02", "2026-01-01"), strict=True):
        content = json.dumps(run.environment() | {"started": started})
        (run.path / "environment.json").write_text(content)
    for odd in ("card", ".fast-half-made"):  # folders that are not runs are ignored
        folder = runs[0].path.parent / odd
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    assert last_unfinished_run(tiny_config.out) == runs[0]
