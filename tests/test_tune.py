"""The search: its ranges, its results, and that several processes share it."""

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from PIL import Image

from hundredfold import Config, Dataset, Run, UserError, fast, finetune, train, tutorial
from hundredfold.cli.main import main
from hundredfold.cli.tune import _csv, _summary
from hundredfold.experiments.tune import SearchRange, Trial, TuningResult, search_space, tune
from hundredfold.support.jsonio import from_json

pytestmark = pytest.mark.filterwarnings("ignore")  # of Optuna, about what is experimental


def test_it_searches_around_the_values_of_the_recipe() -> None:
    space = search_space(fast(), ())
    assert space == {
        "lr": SearchRange(0.15 / 4, 0.6, "log"),
        "muon_lr": SearchRange(0.15 / 4, 0.6, "log"),
        "weight_decay": SearchRange(5e-4 / 8, 4e-3, "log"),
    }
    assert search_space(tutorial(weight_decay=0), ()).keys() == {"lr"}
    assert search_space(fast(), ("pad",)) == {"pad": SearchRange(0, 6, "integer")}
    with pytest.raises(
        UserError, match="--vary colour: the fields of fast that can be varied are lr, muon_lr"
    ):
        search_space(fast(), ("colour",))
    with pytest.raises(UserError, match="--vary muon_lr"):
        search_space(tutorial(), ("muon_lr",))


def test_a_border_that_crops_replace_is_not_searched() -> None:
    with pytest.raises(UserError, match="--vary pad: the fields of finetune that can be varied"):
        search_space(finetune(), ["pad"])


def test_it_continues_and_never_reads_the_test_set(tiny: Dataset, tiny_config: Config) -> None:
    blind = dataclasses.replace(tiny, test=tiny.test[:0])
    config = dataclasses.replace(tiny_config, epochs=1)
    space, told = search_space(config, ("lr", "pad")), list[Trial]()
    first = tune(config, blind, space, 3, "sqlite:///tune.db", told.append)
    assert [trial.number for trial in told] == [0, 1, 2]
    assert first.importance == {}
    found = tune(config, blind, space, 6, "sqlite:///tune.db", told.append)
    assert [trial.number for trial in told] == list(range(6))
    assert found.trials[:3] == first.trials
    assert tune(config, blind, space, 6, "sqlite:///tune.db", told.append) == found
    assert len(told) == 6
    for trial in found.trials:
        assert 0.05 / 4 <= trial.values["lr"] <= 0.2
        assert trial.values["pad"] in range(7)
    best = max(found.trials, key=lambda trial: trial.accuracy or 0)
    assert (found.best.lr, found.best.pad) == (best.values["lr"], best.values["pad"])
    reached = {trial.accuracy for trial in found.trials if trial.state == "complete"}
    assert sum(found.importance.values()) == pytest.approx(1 if len(reached) > 1 else 0)
    other = tune(dataclasses.replace(config, seed=1), blind, space, 1, "sqlite:///tune.db")
    assert other.study != found.study
    assert len(other.trials) == 1


def test_ctrl_c_ends_it_quietly_and_leaves_a_usable_storage(
    tiny: Dataset,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = dataclasses.replace(tiny_config, epochs=1)
    space, create = search_space(config, ("lr",)), optuna.create_study

    def pressed(*_: object, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return create(**options) if options else None

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    for where, what in ((optuna, "create_study"), (optuna.Trial, "report")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, what, pressed)
            tune(config, tiny, space, 1, "sqlite:///tune.db")
    found = tune(config, tiny, space, 1, "sqlite:///tune.db")
    assert [trial.state for trial in found.trials] == ["fail", "complete"]
    assert capfd.readouterr().err == ""


def test_unknown_importances_are_not_shown_as_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trial = Trial(0, "complete", 0.5, {"lr": 0.1})
    _summary(TuningResult("study", "fine_top1", (trial,), Config(), {}), {"lr"}, tmp_path)
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "Importances are not known: fewer than 4 trials are complete" in out
    _summary(TuningResult("study", "fine_top1", (trial,), Config(), {"lr": 1.0}), {"lr"}, tmp_path)
    out = capsys.readouterr().out
    assert "100%" in out
    assert "not known" not in out


def test_a_trial_equals_a_training_with_its_values(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, epochs=1)
    (trial,) = tune(config, tiny, search_space(config, ()), 1, "sqlite:///t.db").trials
    run = train(dataclasses.replace(config, **trial.values), tiny, quiet=True)
    assert run.history()[-1].validation["fine_top1"] == trial.accuracy


def test_trials_of_coarse_labels_are_named_coarse(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(tiny_config, epochs=0.5, labels="coarse", validation=0.25)
    space = search_space(config, ("lr",))
    found = tune(config, tiny, space, 1, "sqlite:///t.db")
    assert found.metric == "coarse_top1"
    (trial,) = found.trials
    run = train(dataclasses.replace(config, **trial.values), tiny, quiet=True)
    assert run.history()[-1].validation["coarse_top1"] == trial.accuracy
    _summary(found, {"lr"}, Path("tuning"))
    out = capsys.readouterr().out
    assert f"best: trial 0, {trial.accuracy:.2%} top-1 coarse" in out
    assert re.search(r"\n lr +\S+ +- *\n", out)  # of one trial nothing is known to matter
    assert _csv(found).startswith("trial,state,validation_coarse_top1,lr")


def test_a_search_whose_trials_all_diverge_is_refused(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, lr=1e30, batch_norm=False, optimizer="sgd")
    with pytest.raises(UserError, match="every one diverged"):
        tune(config, tiny, search_space(config, ("lr",)), 1, "sqlite:///t.db")


def test_a_search_without_held_out_pictures_is_refused(tiny: Dataset, tiny_config: Config) -> None:
    space = search_space(tiny_config, ())
    for changes in ({"validation": 0.0}, {"budget": "9s"}):
        with pytest.raises(UserError, match="set --validation above 0"):
            tune(dataclasses.replace(tiny_config, **changes), tiny, space, 1, "sqlite:///t.db")
    with pytest.raises(UserError, match="--storage abacus cannot be used"):
        tune(tiny_config, tiny, space, 1, "abacus")


def test_a_missing_extra_is_reported(
    tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[tune\]'"):
        tune(tiny_config, tiny, {}, 1, "sqlite:///t.db")


SMALL = ["--data", "sample", "--widths", "8", "8", "--batch-size", "256", "--device", "cpu"]
FLAGS = [*SMALL, "--epochs", "2", "--trial-epochs", "0.5", "--trials", "5"]


@pytest.mark.long
def test_two_processes_share_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "hundredfold", "tune", *FLAGS]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert main(["tune", *FLAGS]) == 0
    rows = list(csv.DictReader(Path("tuning/trials.csv").read_text().splitlines()))
    assert 5 <= len(rows) <= 6  # the other may have been under way
    assert len({row["lr"] for row in rows}) == len(rows)  # no two looked in one place
    best = max(rows, key=lambda row: float(row["validation_fine_top1"]))
    config = from_json(Config, Path("tuning/best.json").read_text(), "best.json")
    assert config.lr == pytest.approx(float(best["lr"]))
    assert config.epochs == 2
    with Image.open("tuning/tuning.png") as picture:
        assert picture.size == (1500, 540)
    assert "train tuning/best.json" in capsys.readouterr().out
    assert main(["train", "tuning/best.json", "--epochs", "0.5", "--quiet"]) == 0
    run = Run(next(Path("runs").iterdir()))
    assert (run.config().lr, run.config().epochs) == (config.lr, 0.5)


def test_a_configuration_file_that_cannot_be_read_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "nowhere.json"]) == 2
    assert "Cannot read the configuration nowhere.json" in capsys.readouterr().err
    Path("bad.json").write_text(json.dumps({"lr": "fast"}))
    assert main(["train", "bad.json"]) == 2
    assert "bad.json has a bad value for lr" in capsys.readouterr().err
    assert main(["tune", "--trials", "0"]) == 2
