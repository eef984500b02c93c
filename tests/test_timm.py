"""Models of timm: with weights from a file, partly frozen, and used by every command."""

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.fine_tuning import fine_tuning, write_weights

from hundredfold import Config, Dataset, finetune
from hundredfold.experiments.ablate import variants
from hundredfold.support.errors import UserError
from hundredfold.training.loop import train_events
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import first_state

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path)


@pytest.fixture
def config(weights: Path, tmp_path: Path) -> Config:
    return fine_tuning(weights, tmp_path / "runs")


def setup_of(config: Config, data: Dataset) -> Setup:
    return make_setup(config, data, CPU)


def test_all_layers_but_the_head_start_with_the_files_weights(
    config: Config, weights: Path, tiny: Dataset
) -> None:
    model = first_state(setup_of(config, tiny)).model
    given, own = load_file(weights), model.state_dict()
    assert own["fc.weight"].shape == (6, 512)
    same = [name for name in given if not name.startswith("fc.")]
    assert len(same) > 50 and all(own[name].equal(given[name]) for name in same)
    torch.save(given, weights.with_suffix(".pth"))
    other = dataclasses.replace(config, weights=str(weights.with_suffix(".pth")))
    assert (
        first_state(setup_of(other, tiny))
        .model.state_dict()["conv1.0.weight"]
        .equal(given["conv1.0.weight"])
    )


def wrapped(given: dict[str, torch.Tensor], way: str) -> Any:
    """Return weights in a form in which other programs save them."""
    if way == "nested":
        others = {"optimizer": {"state": {0: torch.ones(3)}}, "epoch": 7}
        return {"state_dict": {f"model.{k}": v for k, v in given.items()}, **others}
    if way == "averaged":  # the averaged weights are used, as in timm
        return {"model": {k: v + 1 for k, v in given.items()}, "model_ema": given}
    if way == "old":  # from before PyTorch counted batches
        return {k: v for k, v in given.items() if not k.endswith(".num_batches_tracked")}
    beside = {"criterion.weight": torch.ones(3)} if way == "model." else {}
    return {way + name: value for name, value in given.items()} | beside


WAYS = ["model.", "module._orig_mod.", "backbone.", "encoder.net.", "nested", "averaged", "old"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_wrapped_weights_are_found(
    way: str, suffix: str, config: Config, weights: Path, tiny: Dataset
) -> None:
    given = load_file(weights)
    content, path = wrapped(given, way), weights.with_name(f"wrapped{suffix}")
    if suffix == ".pth":
        torch.save(content, path)
    else:
        save_file(flattened(content), path)
    own = first_state(setup_of(dataclasses.replace(config, weights=str(path)), tiny)).model
    for name, value in own.state_dict().items():
        if not name.startswith("fc.") and not (way == "old" and name.endswith("tracked")):
            assert value.equal(given[name]), name


def flattened(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of nested dictionaries in the form that a .safetensors file can hold."""
    found: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= {f"{key}.{name}": v.clone() for name, v in flattened(value).items()}
        elif isinstance(value, torch.Tensor):
            found[str(key)] = value
    return found


def test_a_transformers_position_embeddings_are_converted_to_its_picture_size(
    config: Config, tiny: Dataset, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    given = timm.create_model("test_vit", img_size=160).state_dict()
    torch.save({f"model.{name}": value for name, value in given.items()}, tmp_path / "vit.pth")
    small = dataclasses.replace(config, model="timm:test_vit", weights="vit.pth")
    own = first_state(setup_of(small, tiny)).model.state_dict()
    assert own["pos_embed"].shape != given["pos_embed"].shape
    assert own["blocks.0.attn.qkv.weight"].equal(given["blocks.0.attn.qkv.weight"])
    spread = (own["pos_embed"].std() / given["pos_embed"].std()).item()
    assert 0.2 < spread < 2


@pytest.mark.parametrize("lost", ["conv1.0.weight", "layer4.0.bn2.running_var"])
def test_a_single_missing_tensor_is_an_error(
    lost: str, config: Config, weights: Path, tiny: Dataset
) -> None:
    given = load_file(weights)
    count = sum(not name.startswith("fc.") for name in given)
    del given[lost]
    save_file({f"model.{name}": value for name, value in given.items()}, weights)
    with pytest.raises(UserError, match=f"needs {count} tensors; {count - 1} of them"):
        first_state(setup_of(config, tiny))


def test_the_weights_of_a_larger_model_of_the_family_are_refused(
    config: Config, tiny: Dataset, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet14t").state_dict(), tmp_path / "larger.pth")
    other = dataclasses.replace(config, weights="larger.pth")
    with pytest.raises(UserError, match=r"and no others\. The file may be for another"):
        first_state(setup_of(other, tiny))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named(
    damage: str, suffix: str, config: Config, weights: Path, tiny: Dataset
) -> None:
    path = weights.with_suffix(suffix)
    torch.save(load_file(weights), weights.with_suffix(".pth"))
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"<html>404</html>",
            "zeros": b"\0" * 2000 + whole[2000:],
        }[damage]
    )
    with pytest.raises(UserError, match=f"weights{suffix} is damaged, or not a file of weights"):
        first_state(setup_of(dataclasses.replace(config, weights=str(path)), tiny))


class Model:
    """An object as training scripts pickle it; reading it would create the file `trace`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trace"),)


def test_a_file_that_could_run_code_is_refused_with_an_explanation(
    config: Config, weights: Path, tiny: Dataset
) -> None:
    path = weights.with_suffix(".pth")
    for content in (Model(), {"model": Model(), "state_dict": load_file(weights)}):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"so the file is refused\. .*save_file") as caught:
            first_state(setup_of(dataclasses.replace(config, weights=str(path)), tiny))
        assert "weights_only" not in str(caught.value)
    assert not Path("trace").exists()


def moved_by_steps(setup: Setup) -> set[str]:
    """Return the names of the tensors of a model that the first steps of training change.

    There are three, as some of this model's weights begin at 0 and block the gradients of others.
    """
    state = first_state(setup)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for _ in islice(train_events(state, setup), 3):
        pass
    return {name for name, v in state.model.state_dict().items() if not v.equal(before[name])}


def test_the_first_layers_and_all_statistics_are_frozen(config: Config, tiny: Dataset) -> None:
    setup = setup_of(dataclasses.replace(config, frozen=0.5), tiny)
    weights = {name for name, _ in first_state(setup).model.named_parameters()}
    # A stem of two layers, four blocks and the head: timm counts seven layers, and 3.5 are frozen.
    first = ("conv1.", "bn1.", "layer1.", "layer2.")
    assert moved_by_steps(setup) == {name for name in weights if not name.startswith(first)}


def test_all_layers_are_trained_if_none_is_frozen(config: Config, tiny: Dataset) -> None:
    setup = setup_of(dataclasses.replace(config, frozen=0.0), tiny)
    assert moved_by_steps(setup) == {
        name for name, _ in first_state(setup).model.named_parameters()
    }


def test_a_model_without_pretrained_weights_counts_statistics(
    config: Config, tiny: Dataset
) -> None:
    setup = setup_of(dataclasses.replace(config, weights="", frozen=0.0), tiny)
    assert first_state(setup).head is None
    assert "layer4.0.bn2.running_var" in moved_by_steps(setup)


def test_pictures_are_normalised_as_the_weights_expect(config: Config, tiny: Dataset) -> None:
    info = setup_of(config, tiny).info
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    plain = dataclasses.replace(config, weights="", frozen=0.0)
    assert setup_of(plain, tiny).info.mean != info.mean


def test_transformers_are_built_for_the_picture_size(tiny: Dataset, config: Config) -> None:
    small = dataclasses.replace(
        config, model="timm:vit_tiny_patch16_224", weights="", frozen=0.0, layer_decay=1.0
    )
    model = first_state(setup_of(small, tiny)).model
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"model": "timm:resnet99"}, "timm has no model 'resnet99'"),
        ({"model": "timm:resnet18.a9_in1k"}, "timm has no weights 'resnet18.a9_in1k'"),
        ({"weights": "nowhere.pth"}, r"nowhere\.pth: there is no such file"),
        (
            {"model": "timm:resnet14t"},
            r"does not fit timm:resnet14t\. .* needs 114 tensors; 65 of them",
        ),
        ({"model": "timm:tf_efficientnet_lite0"}, r"needs 294 tensors; 2 of them"),
    ],
)
def test_mistakes_are_explained(
    changes: dict[str, str], why: str, config: Config, tiny: Dataset
) -> None:
    with pytest.raises(UserError, match=why):
        first_state(setup_of(dataclasses.replace(config, **changes), tiny))  # type: ignore[arg-type]


def test_weights_and_freezing_are_only_for_timm() -> None:
    for changes in ({"weights": "x"}, {"frozen": 0.3}, {"layer_decay": 0.9}):
        with pytest.raises(UserError, match="unless --model is timm:NAME"):
            Config(**changes)
    with pytest.raises(UserError, match=r"--frozen is 0\.33, but must be 0 unless --weights"):
        finetune(weights="")
    with pytest.raises(UserError, match=r"--layer-decay is 0\.9, but must be 1 unless"):
        finetune(optimizer="sgd")
    with pytest.raises(UserError, match="--model is 'resnet'"):
        Config(model="resnet")


def test_pictures_too_small_for_a_network_are_refused(config: Config, tiny: Dataset) -> None:
    for name, size in (("inception_v3", 32), ("nest_tiny", 100)):
        other = dataclasses.replace(config, model=f"timm:{name}", weights="", frozen=0, size=size)
        with pytest.raises(UserError, match=f"timm:{name} cannot be trained on pictures of {size}"):
            setup_of(other, tiny)


def test_options_that_timm_models_do_not_have_are_refused(config: Config) -> None:
    for changes in ({"widths": (8, 8)}, {"batch_norm": False}, {"residual": False}):
        with pytest.raises(UserError, match=f"--{next(iter(changes)).replace('_', '-')} is"):
            dataclasses.replace(config, **changes)
    assert {"batch norm", "residuals"} & variants(config).keys() == set()
