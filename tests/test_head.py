"""Runs that start from pretrained features: only a fitted head, or fine-tuning."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.making import make_split, make_tiny
from support.stopping import interrupted
from test_resume import assert_same

from hundredfold import Config, Dataset, Run, UserError, evaluate, finetune, probe, resume, train
from hundredfold.cli.main import main
from hundredfold.data.dataset import Split
from hundredfold.evaluation.compare import compare
from hundredfold.experiments.ablate import ablate
from hundredfold.experiments.tune import search_space, tune
from hundredfold.export.export import export
from hundredfold.inference.features import last_linear, predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.inference.predict import Predictor
from hundredfold.metrics.calibration import fit_temperature
from hundredfold.models.logistic import STRENGTHS, fit_heads
from hundredfold.report.page import percent
from hundredfold.report.report import write_report
from hundredfold.training import head as training_head
from hundredfold.training.budget import plan_budget
from hundredfold.training.head import DEFAULT_STRENGTH, FEW, head_split
from hundredfold.training.loop import train_epochs
from hundredfold.training.progress import Display
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
    assert percent(probed.metrics()["test"]["fine_top1"]) in page
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
    config = configured(probe, tmp_path / "ablation", weight_decay=0.0)
    found_results = list(ablate(config, tiny, 1, lambda _: None, quiet=True))
    assert {result.without for result in found_results} == {"", "augmentation"}
    for result in found_results:
        head = Run(result.run).metrics()["head"]["validation"]
        assert result.validation["fine_top1"] == head["fine_top1"]


def test_there_is_nothing_to_tune_without_epochs(tiny: Dataset, tmp_path: Path) -> None:
    config = configured(probe, tmp_path)
    with pytest.raises(UserError, match="--epochs is 0: only the head is trained"):
        tune(config, tiny, search_space(config, ["lr"]), 1, f"sqlite:///{tmp_path}/s.db")


def test_the_commands_accept_a_run_without_epochs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    flags = ["--data", "sample", "--size", "0", "--device", "cpu"]
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
    images = torch.cat([setup.train_split.images, setup.validation_split.images])
    both = torch.cat([images, images.flip(3)])
    features = predict_features(state.model, both, setup.info).clone()
    labels = torch.cat([setup.train_split.labels, setup.validation_split.labels]).repeat(2)
    (want,) = fit_heads(features, labels, 6, (DEFAULT_STRENGTH,))
    head = last_linear(state.model)
    torch.testing.assert_close(head.weight, want.weight, atol=2e-2, rtol=0)
    logits = head(features).softmax(1)
    torch.testing.assert_close(logits, want(features).softmax(1), atol=5e-3, rtol=0)


def test_without_flips_the_mirror_images_are_not_used(tiny: Dataset, tmp_path: Path) -> None:
    _, state = begin(configured(probe, tmp_path, flip="none", validation=0.0), tiny)
    assert state.head and not state.head.refitted
    setup = make_setup(configured(probe, tmp_path, validation=0.0), tiny, CPU)
    features = predict_features(state.model, setup.train_split.images, setup.info).clone()
    (want,) = fit_heads(features, setup.train_split.labels, 6, (DEFAULT_STRENGTH,))
    torch.testing.assert_close(last_linear(state.model).weight, want.weight, atol=1e-3, rtol=0)


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


@pytest.mark.parametrize("steps", [1, 4])
def test_an_interrupted_fine_tuning_resumes_to_the_same_bits(
    steps: int, tiny: Dataset, tmp_path: Path
) -> None:
    config = configured(finetune, tmp_path / "runs", epochs=1.5, batch_size=24, lr=1e-3)
    whole = train(config, tiny, quiet=True)
    assert sum(len(epoch.loss) for epoch in whole.history()) == 4
    run = interrupted(config, tiny, steps)
    assert_same(resume(run, tiny, quiet=True), whole)
    assert run.metrics()["head"] == run.metrics()["head"] | {
        key: whole.metrics()["head"][key] for key in ("strength", "validation")
    }
    assert all(part.difference == "" for part in reproduce(whole, tiny))


class Notes(Display):
    """A display that keeps its sentences."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.mark.parametrize("stop", [0, 3])
def test_the_fitted_head_is_kept_if_fine_tuning_makes_the_model_worse(
    stop: int, tiny: Dataset, tmp_path: Path
) -> None:
    data = dataclasses.replace(tiny, validation=make_split(60, 6, 3))
    config = configured(finetune, tmp_path / "runs", epochs=1.0, batch_size=24, lr=0.05)
    display = Notes()
    if stop:
        run = resume(interrupted(config, data, stop), data, display=display)
    else:
        run = train(config, data, display=display)
    (epoch,) = run.history()
    before = run.metrics()["head"]["validation"]["fine_top1"]
    assert epoch.validation["fine_top1"] < before
    assert display.said[-1].startswith(
        f"Fine-tuning raised the loss on the validation pictures "
        f"({epoch.validation['fine_top1']:.2%} of them are correct after it, {before:.2%} before)"
    )
    assert run.metrics()["interpolation"]["share"] == 0
    _, first = begin(run.config(), data)
    for name, value in run.model().state_dict().items():
        assert value.equal(first.model.state_dict()[name]), name
    assert evaluate(run, data)["test"] == run.metrics()["test"]
    parts = list(reproduce(run, data))
    assert [part.what for part in parts] == ["epoch 1", "weights", "test predictions"]
    assert all(part.difference == "" for part in parts)


def test_weights_after_a_mild_fine_tuning_are_a_mean_of_those_before_and_after(
    tiny: Dataset, tmp_path: Path
) -> None:
    data = dataclasses.replace(tiny, validation=make_split(60, 6, 3))
    config = configured(finetune, tmp_path, epochs=6.0, batch_size=24, lr=1e-4)
    display = Notes()
    run = train(config, data, display=display)
    interpolation = run.metrics()["interpolation"]
    share = interpolation["share"]
    assert 0 < share < 1
    setup, state = begin(run.config(), data)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for epoch in train_epochs(state, setup):
        assert epoch.validation == run.history()[epoch.epoch - 1].validation
    for name, value in state.model.state_dict().items():
        torch.testing.assert_close(
            run.model().state_dict()[name], (1 - share) * before[name] + share * value
        )
    assert data.validation
    parts, labels = data.validation.parts(), data.validation.labels
    logits = predict_logits(run.model(), parts, run.info())
    correct = (logits.argmax(1) == labels).double().mean().item()
    assert interpolation["validation"]["fine_top1"] == pytest.approx(correct)
    loss = F.cross_entropy(logits, labels).item()
    assert interpolation["validation"]["loss"] == pytest.approx(loss, abs=1e-6)
    assert loss < run.history()[-1].validation["loss"]
    assert loss < run.metrics()["head"]["validation"]["loss"]
    assert run.info().temperature == pytest.approx(fit_temperature(logits, labels))
    assert f"With them, {correct:.2%} of the validation pictures" in display.said[-1]
    assert f"{share:.0%} after and {1 - share:.0%} before" in write_report(run).read_text()


def test_fine_tuning_is_kept_without_validation_pictures(tiny: Dataset, tmp_path: Path) -> None:
    config = configured(finetune, tmp_path, epochs=1.0, batch_size=24, lr=0.05, validation=0.0)
    display = Notes()
    run = train(config, tiny, display=display)
    _, first = begin(run.config(), tiny)
    own, firsts = run.model().state_dict(), first.model.state_dict()
    assert not own["body.conv_head.weight"].equal(firsts["body.conv_head.weight"])
    assert not any("Fine-tuning raised" in sentence for sentence in display.said)
    assert run.metrics()["interpolation"] is None


def test_a_short_fine_tuning_starts_from_a_head_on_a_sample(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_head, "SAMPLE", 30)
    config = configured(finetune, tmp_path, budget="1s", seed=1)
    setup, state = begin(config, tiny)
    assert state.head and state.head.pictures == 40  # for each second
    sample = head_split(setup)
    assert sample.rows is not None and len(sample.rows.unique()) == 40
    features = predict_features(state.model, sample.parts(), setup.info)
    (head,) = fit_heads(features, sample.labels, 6, (state.head.strength,))
    torch.testing.assert_close(last_linear(state.model).weight, head.weight, atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(training_head, "SAMPLE", 50)
    _, state = begin(config, tiny)
    assert state.head and state.head.pictures == 50
    _, state = begin(dataclasses.replace(config, budget="1h"), tiny)
    assert state.head and state.head.pictures == len(setup.train_split) == 72
    _, state = begin(configured(probe, tmp_path, budget="1s"), tiny)
    assert state.head and state.head.pictures == 96  # validation pictures as well


def test_a_budget_that_is_too_short_for_steps_trains_only_the_head(
    tiny: Dataset, tmp_path: Path
) -> None:
    run = train(configured(finetune, tmp_path, budget="0.1s"), tiny, quiet=True)
    assert run.history() == [] and run.config().epochs == 0
    assert run.metrics()["test"]["fine_top1"] > 0.35
    assert evaluate(run, tiny)["test"] == run.metrics()["test"]


def test_a_budget_that_allows_steps_is_kept_for_a_pretrained_model(
    tiny: Dataset, tmp_path: Path
) -> None:
    data = dataclasses.replace(tiny, train=make_split(960, 6))
    run = train(configured(finetune, tmp_path, budget="12s"), data, quiet=True)
    assert run.history()[-1].progress == 1


def test_a_long_budget_ends_a_fine_tuning_after_twenty_epochs(
    tiny: Dataset, tmp_path: Path
) -> None:
    setup, _ = begin(configured(finetune, tmp_path, budget="10h"), tiny)
    planned, clock = plan_budget(setup, 24, time.perf_counter())
    assert clock is None and planned.config.epochs == 20


def test_no_epochs_need_pretrained_weights() -> None:
    with pytest.raises(UserError, match="--epochs is 0, but must be above 0 unless there are"):
        Config(epochs=0)
