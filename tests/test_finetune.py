"""Runs that fine-tune a network from pretrained features and a fitted head."""

import dataclasses
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.making import Notes, make_split
from support.stopping import interrupted
from test_head import begin, configured
from test_resume import assert_same

from hundredfold import Config, Dataset, UserError, evaluate, finetune, probe, resume, train
from hundredfold.inference.features import last_linear, predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.calibration import fit_temperature
from hundredfold.models.logistic import fit_heads
from hundredfold.report.page import percent
from hundredfold.report.report import write_report
from hundredfold.training import head as training_head
from hundredfold.training.budget import plan_budget
from hundredfold.training.head import head_split
from hundredfold.training.loop import train_epochs
from hundredfold.training.resume import reproduce


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
        "Fine-tuning raised the loss on the validation pictures, so the model from before "
        f"fine-tuning is kept. It classified {before:.2%} of these pictures correctly, and the "
        f"fine-tuned model {epoch.validation['fine_top1']:.2%}."
    )
    assert run.metrics()["interpolation"]["share"] == 0
    setup, first = begin(run.config(), data)
    kept = run.model().state_dict()
    for name, value in first.model.state_dict().items():
        assert value.equal(kept[name]) or name.startswith("classifier."), name
    # The head was fitted again, to the validation pictures as well, and calibrated before.
    splits, head = (setup.train_split, setup.validation_split), run.metrics()["head"]
    assert head["refitted"] and head["pictures"] == 96 + 60
    features = [predict_features(first.model, split.parts(), setup.info) for split in splits]
    labels = torch.cat([split.labels for split in splits])
    (again,) = fit_heads(torch.cat(features), labels, 6, (head["strength"],))
    layer = last_linear(run.model())
    torch.testing.assert_close(layer.weight, again.weight, atol=1e-3, rtol=1e-3)
    held = last_linear(first.model)(features[1])
    assert run.info().temperature == pytest.approx(
        fit_temperature(held, splits[1].labels), rel=1e-3
    )
    page = write_report(run).read_text()
    assert f"it classified {percent(before)} of them correctly. Fine-tuning then raised" in page
    assert evaluate(run, data)["test"] == run.metrics()["test"]
    parts = list(reproduce(run, data))
    assert [part.what for part in parts] == ["epoch 1", "weights", "test predictions"]
    assert all(part.difference == "" for part in parts)


def test_weights_after_a_mild_fine_tuning_are_a_mean_of_those_before_and_after(
    tiny: Dataset, tmp_path: Path
) -> None:
    data = dataclasses.replace(tiny, validation=make_split(60, 6, 3))
    config = configured(finetune, tmp_path, epochs=3.0, batch_size=24, lr=2e-4)
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
    assert f"They classify {correct:.2%} of the validation pictures" in display.said[-1]
    assert f"({share:.0%}) and before it ({1 - share:.0%})" in write_report(run).read_text()


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
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.training.budget.MOST_PROBE_SECONDS", 1.0)
    setup, _ = begin(configured(finetune, tmp_path, budget="10h"), tiny)
    planned, clock = plan_budget(setup, 24, time.perf_counter())
    assert clock is None and planned.config.epochs == 20


def test_no_epochs_need_pretrained_weights() -> None:
    with pytest.raises(UserError, match="--epochs is 0, but must be above 0 unless --weights"):
        Config(epochs=0)
