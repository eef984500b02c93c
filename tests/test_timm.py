"""timm's models: with weights from a file, frozen first, and by every later path."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stopping import interrupted

from hundredfold import Config, Dataset, evaluate, finetune, resume, train
from hundredfold.ablate import variants
from hundredfold.batches import batches
from hundredfold.errors import UserError
from hundredfold.job import Job, make_job
from hundredfold.loop import step
from hundredfold.predict import Predictor
from hundredfold.state import first_state

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights of a model with other classes."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=9).state_dict(), path)
    return path


@pytest.fixture
def config(weights: Path, tmp_path: Path) -> Config:
    """A recipe that fine-tunes them in a second."""
    return finetune(
        model="timm:resnet10t",
        weights=str(weights),
        epochs=1.0,
        batch_size=12,
        validation=0.25,
        device="cpu",
        out=str(tmp_path / "runs"),
    )


def job_of(config: Config, data: Dataset) -> Job:
    return make_job(config, data, CPU)


def test_the_body_begins_with_the_files_weights(
    config: Config, weights: Path, tiny: Dataset
) -> None:
    model = first_state(job_of(config, tiny)).model
    given, own = load_file(weights), model.state_dict()
    assert own["fc.weight"].shape == (6, 512)
    same = [name for name in given if not name.startswith("fc.")]
    assert len(same) > 50 and all(own[name].equal(given[name]) for name in same)
    torch.save(given, weights.with_suffix(".pth"))
    other = dataclasses.replace(config, weights=str(weights.with_suffix(".pth")))
    assert (
        first_state(job_of(other, tiny))
        .model.state_dict()["conv1.0.weight"]
        .equal(given["conv1.0.weight"])
    )


def test_only_the_head_learns_while_the_rest_is_frozen(config: Config, tiny: Dataset) -> None:
    job = job_of(config, tiny)
    state = first_state(job)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    images, labels = next(batches(job.training, 0, config, CPU))
    step(state, job, images, labels)
    moved = {name for name, v in state.model.state_dict().items() if not v.equal(before[name])}
    assert moved == {"fc.weight", "fc.bias"}
    state.progress = 0.5
    step(state, job, images, labels)
    moved = {name for name, v in state.model.state_dict().items() if not v.equal(before[name])}
    assert {"conv1.0.weight", "fc.weight", "conv1.1.running_mean"} < moved


def test_pictures_are_normalised_as_the_weights_expect(config: Config, tiny: Dataset) -> None:
    info = job_of(config, tiny).info
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    plain = dataclasses.replace(config, weights="")
    assert job_of(plain, tiny).info.mean != info.mean


def test_a_run_is_measured_again_and_predicts(config: Config, tiny: Dataset) -> None:
    run = train(config, tiny, quiet=True)
    assert evaluate(run, tiny)["test"] == run.metrics["test"]
    (answer,) = Predictor.load(run)([tiny.test.images[0]])
    assert answer.label in tiny.classes


def test_transformers_are_told_the_side(tiny: Dataset, config: Config) -> None:
    small = dataclasses.replace(config, model="timm:vit_tiny_patch16_224", weights="", freeze=0.0)
    model = first_state(job_of(small, tiny)).model
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"model": "timm:resnet99"}, "timm has no model 'resnet99'"),
        ({"model": "timm:resnet18.a9_in1k"}, "timm has no weights 'resnet18.a9_in1k'"),
        ({"weights": "nowhere.pth"}, r"nowhere\.pth: there is no such file"),
        ({"model": "timm:resnet14t"}, "does not fit timm:resnet14t"),
    ],
)
def test_mistakes_are_explained(
    changes: dict[str, str], why: str, config: Config, tiny: Dataset
) -> None:
    with pytest.raises(UserError, match=why):
        first_state(job_of(dataclasses.replace(config, **changes), tiny))  # type: ignore[arg-type]


def test_weights_and_freezing_are_for_timm_alone() -> None:
    for changes in ({"weights": "x"}, {"freeze": 0.3}):
        with pytest.raises(UserError, match="unless --model is timm:NAME"):
            Config(**changes)
    with pytest.raises(UserError, match="--model is 'resnet'"):
        Config(model="resnet")


def test_what_its_models_have_as_it_is_cannot_be_changed(config: Config) -> None:
    for changes in ({"widths": (8, 8)}, {"batch_norm": False}, {"residual": False}):
        with pytest.raises(UserError, match=f"--{next(iter(changes)).replace('_', '-')} is"):
            dataclasses.replace(config, **changes)
    assert {"batch norm", "residuals"} & variants(config).keys() == set()


def test_a_run_goes_on_without_the_file_that_it_began_with(
    config: Config, weights: Path, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, tiny, quiet=True)
    relative = dataclasses.replace(config, weights=weights.name)
    run = interrupted(relative, tiny, 3)
    assert run.config.weights == str(weights)
    weights.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ours, its = resume(run, tiny, quiet=True).model(), whole.model()
    for name, value in ours.state_dict().items():
        assert value.equal(its.state_dict()[name]), name
