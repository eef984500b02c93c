"""Runs of models of timm: resumed, compared, exported."""

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load, save_file
from support.fine_tuning import fine_tuning, write_weights
from support.stopping import interrupted

from hundredfold import Config, Dataset, UserError, evaluate, resume, train
from hundredfold.augment import NO_AUGMENTATION
from hundredfold.experiments.ablate import ablate
from hundredfold.export.export import export
from hundredfold.inference.features import last_linear
from hundredfold.inference.predict import Predictor


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path)


@pytest.fixture
def config(weights: Path, tmp_path: Path) -> Config:
    return fine_tuning(weights, tmp_path / "runs")


def test_a_run_can_be_evaluated_and_can_predict(config: Config, tiny: Dataset) -> None:
    run = train(config, tiny, quiet=True)
    assert evaluate(run, tiny)["test"] == run.metrics()["test"]
    (answer,) = Predictor.load(run)([tiny.test.images[0]])
    assert answer.label in tiny.classes


def test_an_ablation_finds_its_runs_from_any_folder(
    config: Config, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, weights="weights.safetensors", epochs=0.5)
    config = dataclasses.replace(
        config, **NO_AUGMENTATION, label_smoothing=0.0, weight_decay=0.0
    )  # nothing to leave out
    (first,) = ablate(config, tiny, 1, lambda _: None, quiet=True)
    lines: list[str] = []
    (second,) = ablate(config, tiny, 1, lines.append, quiet=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = dataclasses.replace(tiny, source="/mnt/the/same/pictures")
    config = dataclasses.replace(config, weights="../weights.safetensors")
    (third,) = ablate(config, moved, 1, lines.append, quiet=True)
    assert first.run == second.run == third.run
    assert all(line.endswith(f"already in {first.run}") for line in lines)


def test_a_run_resumes_without_its_file_of_pretrained_weights(
    config: Config, weights: Path, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, validation=0.0)  # so it does not return to the head
    whole = train(config, tiny, quiet=True)
    relative = dataclasses.replace(config, weights=weights.name)
    run = interrupted(relative, tiny, 3)
    assert run.config().weights == str(weights)
    weights.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ours, its = resume(run, tiny, quiet=True).model(), whole.model()
    for name, value in ours.state_dict().items():
        assert value.equal(its.state_dict()[name]), name


def test_weights_that_the_end_needs_again_must_be_the_same(
    config: Config, weights: Path, tiny: Dataset
) -> None:
    content = weights.read_bytes()
    run = interrupted(config, tiny, 3)
    weights.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        resume(run, tiny, quiet=True)
    others = {name: value + 1 for name, value in load(content).items()}
    save_file(others, weights)
    with pytest.raises(
        UserError, match=r"^The pretrained weights of --weights /.* have changed since"
    ):
        resume(run, tiny, quiet=True)
    weights.write_bytes(content)
    assert resume(run, tiny, quiet=True).finished


def test_a_resumed_run_has_the_same_cross_validation(config: Config, tiny: Dataset) -> None:
    whole = train(config, tiny, quiet=True).metrics()["cross_validation"]
    again = resume(interrupted(config, tiny, 3), tiny, quiet=True).metrics()["cross_validation"]
    assert whole.pop("seconds") > 0 and again.pop("seconds") > 0
    assert whole == again and whole["pictures"] == len(tiny.train) + len(tiny.test)


@pytest.mark.parametrize("name", ["dla46_c", "deit_tiny_distilled_patch16_224"])
def test_features_need_a_single_linear_head(name: str) -> None:
    model = pytest.importorskip("timm").create_model(name, num_classes=3)
    with pytest.raises(UserError, match="does not end with a single linear layer"):
        last_linear(model)


def test_a_model_without_a_linear_head_is_exported(config: Config, tiny: Dataset) -> None:
    plain = dataclasses.replace(config, model="timm:dla46_c", weights="", frozen=0, layer_decay=1)
    found = export(train(plain, tiny, quiet=True), "torch", tiny)
    assert found.accuracy["exported"]["fine_top1"] == found.accuracy["predictor"]["fine_top1"]
