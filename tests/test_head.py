"""Runs that start from pretrained features and fit only a head."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.making import make_split, make_tiny
from support.pets import pictures

from hundredfold import Config, Dataset, Run, UserError, evaluate, finetune, probe, resume, train
from hundredfold.cli.main import main
from hundredfold.data.dataset import Split
from hundredfold.evaluation.compare import compare
from hundredfold.experiments.ablate import ablate
from hundredfold.experiments.lr_find import find_lr
from hundredfold.experiments.tune import search_space, tune
from hundredfold.export.export import export
from hundredfold.inference.features import cached_features, last_linear, predict_features
from hundredfold.inference.predict import Predictor
from hundredfold.metrics.calibration import fit_temperature
from hundredfold.models.logistic import STRENGTHS, fit_heads
from hundredfold.report.report import write_report
from hundredfold.training.head import DEFAULT_STRENGTH, FEW
from hundredfold.training.resume import reproduce
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

CPU = torch.device("cpu")


def configured(recipe: Any, out: Path, **changes: Any) -> Config:
    """Return a recipe for pictures of 32 pixels a side."""
    fields = {"size": 32, "validation": 0.25, "device": "cpu", "out": str(out)}
    config: Config = recipe(**fields | changes)
    return config


def begin(config: Config, data: Dataset) -> tuple[Setup, State]:
    setup = make_setup(config, data, CPU)
    return setup, first_state(setup)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `probe` on `tiny` that the tests do not change."""
    return train(configured(probe, tmp_path_factory.mktemp("runs")), make_tiny(), quiet=True)


def test_a_run_without_epochs_has_a_fitted_head_and_no_history(probed: Run, tiny: Dataset) -> None:
    assert probed.finished and probed.history() == []
    metrics = probed.metrics()
    assert metrics["test"]["fine_top1"] > 0.35  # by chance: 0.17
    assert metrics["train_seconds"] == metrics["images_per_second"] == 0
    assert metrics["head"]["seconds"] > 0
    assert not (probed.path / "figures/curves.png").exists()
    assert evaluate(probed, tiny)["test"] == metrics["test"]
    assert evaluate(probed, tiny)["test_flip"] == metrics["test_flip"]
    answers = Predictor.load(probed)(list(tiny.test.images))
    want = [tiny.classes[i] for i in probed.test_logits()["logits"].argmax(1)]
    assert [answer.label for answer in answers] == want


def test_a_run_without_epochs_is_finished_and_can_be_reproduced(probed: Run, tiny: Dataset) -> None:
    with pytest.raises(UserError, match="is finished and cannot be resumed"):
        resume(probed, tiny, quiet=True)
    parts = list(reproduce(probed, tiny))
    assert [part.what for part in parts] == ["weights", "test predictions"]
    assert all(part.difference == "" for part in parts)


def test_a_run_without_epochs_can_be_reported_and_exported(probed: Run, tiny: Dataset) -> None:
    page = write_report(probed, tiny).read_text()
    assert f"{probed.metrics()['test']['fine_top1']:.1%}".removesuffix("%") in page
    result = export(probed, "torch", tiny)
    assert max(result.parity.values()) < 1e-4
    assert result.accuracy["exported"]["fine_top1"] == probed.metrics()["test"]["fine_top1"]


def test_runs_without_epochs_can_be_compared_and_ablated(
    probed: Run, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = train(configured(finetune, tmp_path / "runs", epochs=0.5), tiny, quiet=True)
    other = train(configured(probe, tmp_path / "runs", flip="none"), tiny, quiet=True)
    for runs, charts in (([probed, tuned], 1), ([probed, other], 0)):
        found = compare(runs)
        assert len(found.groups) == 2 and len(found.histories()) == charts
        figure = tmp_path / f"{charts}.png"
        assert main(["compare", *map(str, runs), "--out", str(figure)]) == 0
        assert figure.exists() == (charts > 0)
    config = configured(probe, tmp_path / "ablation")
    found_results = list(ablate(config, tiny, 1, lambda _: None, quiet=True))
    assert {result.without for result in found_results} == {"", "augmentation"}
    for result in found_results:
        head = Run(result.run).metrics()["head"]["validation"]
        assert result.validation["fine_top1"] == head["fine_top1"]


def test_there_is_nothing_to_tune_without_epochs(tiny: Dataset, tmp_path: Path) -> None:
    config = configured(probe, tmp_path)
    with pytest.raises(UserError, match="--epochs is 0: only the head is trained"):
        tune(config, tiny, search_space(config, ["lr"]), 1, f"sqlite:///{tmp_path}/s.db")


def test_a_budget_and_a_search_for_a_rate_need_epochs(tiny: Dataset, tmp_path: Path) -> None:
    config = configured(probe, tmp_path, budget="10s")
    with pytest.raises(UserError, match="--budget has no effect with --epochs 0"):
        train(config, tiny)
    setup, state = begin(configured(probe, tmp_path), tiny)
    with pytest.raises(UserError, match="only the head is trained, which needs no learning rate"):
        find_lr(state, setup)


def test_the_commands_accept_a_run_without_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = pictures(tmp_path / "pets", {"train/a": 30, "train/b": 30, "test/a": 9, "test/b": 9})
    flags = ["--data", str(data), "--size", "32", "--device", "cpu"]
    assert main(["train", "probe", *flags]) == 0
    said = capsys.readouterr().out
    assert "only the head is trained" in said and "a linear head on the pretrained" in said
    (run,) = Path("runs").iterdir()
    assert main(["evaluate", str(run)]) == 0
    assert "equal the recorded ones to the last digit" in capsys.readouterr().out
    assert main(["reproduce", str(run)]) == 0
    assert "was reproduced to the bit" in capsys.readouterr().out
    assert main(["resume", str(run)]) == 2
    assert "is finished and cannot be resumed" in capsys.readouterr().err
    assert main(["runs", "runs"]) == 0
    assert "probe" in capsys.readouterr().out


def test_the_head_is_the_logistic_regression_of_both_views(tiny: Dataset, tmp_path: Path) -> None:
    setup, state = begin(configured(probe, tmp_path), tiny)
    assert state.head and state.head.strength == DEFAULT_STRENGTH  # 24 pictures are too few
    assert state.head.refitted and state.head.pictures == 96
    splits = setup.train_split, setup.validation_split
    views = [view for split in splits for view in (split.images, split.images.flip(3))]
    # The order and the batches are those of training, because other ones round differently.
    rows = [cached_features(state.model, [view], setup.info) for view in views]
    features, labels = torch.cat(rows), torch.cat([split.labels.repeat(2) for split in splits])
    (want,) = fit_heads(features, labels, 6, (DEFAULT_STRENGTH,))
    head = last_linear(state.model)
    torch.testing.assert_close(head.weight, want.weight, atol=1e-3, rtol=0)
    logits = head(features).softmax(1)
    torch.testing.assert_close(logits, want(features).softmax(1), atol=1e-3, rtol=0)


def test_without_flips_the_mirror_images_are_not_used(tiny: Dataset, tmp_path: Path) -> None:
    _, state = begin(configured(probe, tmp_path, flip="none", validation=0.0), tiny)
    assert state.head and not state.head.refitted
    setup = make_setup(configured(probe, tmp_path, validation=0.0), tiny, CPU)
    features = predict_features(state.model, setup.train_split.images, setup.info).clone()
    (want,) = fit_heads(features, setup.train_split.labels, 6, (DEFAULT_STRENGTH,))
    torch.testing.assert_close(last_linear(state.model).weight, want.weight, atol=1e-3, rtol=0)


def test_both_ways_to_balance_classes_weigh_them_in_the_fit(tiny: Dataset, tmp_path: Path) -> None:
    labels = tiny.train.labels
    few = torch.cat([(labels == 0).nonzero()[:4, 0], (labels > 0).nonzero()[:, 0]])
    data = dataclasses.replace(tiny, train=tiny.train.select(few))
    heads = []
    for balance in ("none", "loss", "sampling"):
        _, state = begin(configured(probe, tmp_path, balance=balance, validation=0.0), data)
        heads.append(last_linear(state.model).weight)
    assert heads[1].equal(heads[2])
    assert not heads[0].equal(heads[1])


def test_validation_pictures_measure_a_head_that_was_not_fitted_to_them(
    probed: Run, tiny: Dataset, tmp_path: Path
) -> None:
    setup, state = begin(configured(probe, tmp_path), tiny)
    split, held = setup.train_split, setup.validation_split
    model = state.model
    features = predict_features(model, torch.cat([split.images, split.images.flip(3)]), setup.info)
    (head,) = fit_heads(features.clone(), split.labels.repeat(2), 6, (DEFAULT_STRENGTH,))
    logits = head(predict_features(model, held.images, setup.info).clone())
    assert state.validation_logits is not None
    torch.testing.assert_close(state.validation_logits, logits, atol=1e-2, rtol=0)
    record = probed.metrics()["head"]
    assert record["validation"]["loss"] == pytest.approx(
        F.cross_entropy(logits, held.labels).item(), abs=1e-3
    )
    expected = fit_temperature(logits, held.labels)
    assert probed.info().temperature == pytest.approx(expected, rel=1e-2)
    restored = first_state(setup)
    restored.validation_logits = torch.zeros(1)
    restored.load(state.checkpoint(setup))
    assert restored.validation_logits.equal(state.validation_logits)
    assert (
        "Before it was fitted to the validation pictures as well"
        in write_report(probed, tiny).read_text()
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_strength_is_the_first_after_which_the_validation_loss_rises(
    seed: int, tiny: Dataset, tmp_path: Path
) -> None:
    labels = make_split(240, 6).labels
    noise = torch.rand(240, generator=torch.Generator().manual_seed(seed)) < 0.3 * seed
    train_split = Split(make_split(240, 6).images, torch.where(noise, labels.flip(0), labels))
    data = dataclasses.replace(tiny, train=train_split, validation=make_split(FEW, 6, 5))
    setup, state = begin(configured(probe, tmp_path, flip="none"), data)
    features = predict_features(state.model, train_split.images, setup.info).clone()
    held = predict_features(state.model, setup.validation_split.images, setup.info).clone()
    losses = [
        F.cross_entropy(head(held), setup.validation_split.labels).item()
        for head in fit_heads(features, train_split.labels, 6)
    ]
    rises = [i for i in range(1, len(losses)) if losses[i] >= losses[i - 1]]
    best = rises[0] - 1 if rises else len(losses) - 1
    assert state.head and state.head.strength == STRENGTHS[best]
    assert state.head.validation["loss"] == pytest.approx(losses[best], abs=1e-3)


def test_the_test_pictures_choose_nothing(tiny: Dataset, tmp_path: Path) -> None:
    """With `validate_on` test, the test split is evaluated, but the head does not depend on it."""
    config = configured(probe, tmp_path, validation=0.0, validate_on="test")
    heads = []
    for test in (make_split(60, 6, 1), Split(make_split(60, 6, 1).images, torch.zeros(60).long())):
        _, state = begin(config, dataclasses.replace(tiny, test=test))
        assert state.head and state.head.strength == DEFAULT_STRENGTH
        assert state.head.validation == {}
        heads.append(last_linear(state.model).weight)
    assert heads[0].equal(heads[1])
