"""Installed weights: timm's models give the reference logits with them; other files are refused."""

import hashlib
import importlib.util
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hundredfold import Config, Dataset, UserError, probe
from hundredfold.cli.main import main
from hundredfold.models import installed
from hundredfold.models.build import build_model
from hundredfold.models.info import ModelInfo
from hundredfold.models.installed import PACKAGES, Package, fold_batch_norm, installed_weights
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

NAMES = sorted(PACKAGES)
LITE0 = "tf_efficientnet_lite0"


def package_file(package: Package) -> Path:
    """Return the path of an installed file of weights."""
    spec = importlib.util.find_spec(package.name.replace("-", "_"))
    assert spec and spec.origin
    return Path(spec.origin).parent / package.file


def reference(name: str) -> nn.Module:
    """Return timm's model of a name with the file's tensors, matched by their order alone.

    Both libraries list the layers of a network in the order in which they are applied.
    """
    import timm

    model: nn.Module = timm.create_model(name)
    stored = torch.load(package_file(PACKAGES[name]), map_location="cpu", weights_only=True)
    own = model.state_dict()
    # This library lists the layers after the blocks where timm does, so no name is needed.
    ends = {key: value for key, value in stored.items() if not key.startswith("_blocks.")}
    blocks = {key: value for key, value in stored.items() if key.startswith("_blocks.")}
    stem = [value for key, value in ends.items() if key.startswith(("_conv_stem", "_bn0"))]
    rest = [value for key, value in ends.items() if not key.startswith(("_conv_stem", "_bn0"))]
    values = [*stem, *blocks.values(), *rest]
    assert [value.shape for value in values] == [value.shape for value in own.values()]
    model.load_state_dict(dict(zip(own, values, strict=True)))
    return model.eval()


def pixels(seed: int = 0) -> Tensor:
    """Return normalised pictures (4, 3, 48, 48)."""
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_renamed_and_folded_weights_give_the_reference_logits(name: str) -> None:
    import timm

    want = reference(name)(pixels())
    assert want.std() > 0.5  # the weights have been trained
    model = timm.create_model(name)
    model.load_state_dict(installed_weights(name, model))
    torch.testing.assert_close(model.eval()(pixels()), want, atol=1e-5, rtol=0)
    fold_batch_norm(model)
    torch.testing.assert_close(model(pixels()), want, atol=1e-4, rtol=0)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())


def info_of(name: str = LITE0, **changes: Any) -> ModelInfo:
    values: dict[str, Any] = {
        "model": f"timm:{name}",
        "widths": (),
        "labels": "fine",
        "classes": tuple("abc"),
        "superclasses": (),
        "parents": (),
        "image_size": 48,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return ModelInfo(**values | changes)


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}


@torch.no_grad()
def test_a_built_model_has_all_installed_weights_but_those_of_the_head() -> None:
    model = build_model(info_of(), "installed").eval()
    want = reference(LITE0)
    assert model(pixels()).shape == (4, 3)
    own, theirs = without_head(model.state_dict()), without_head(want.state_dict())
    assert own.keys() == theirs.keys()
    assert all(value.equal(theirs[key]) for key, value in own.items())
    folded = build_model(info_of(batch_norm=False), "installed").eval()
    features = [
        m.forward_head(m.forward_features(pixels()), pre_logits=True)  # type: ignore[operator]
        for m in (folded, want)
    ]
    torch.testing.assert_close(*features, atol=1e-4, rtol=0)


def test_a_folded_model_computes_the_same_in_training_and_evaluation() -> None:
    model = build_model(info_of(batch_norm=False), "installed")
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert model.train()(pixels()).equal(model.eval()(pixels()))


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a copy of the lite0 package, which is found instead of the installed one."""
    source = package_file(PACKAGES[LITE0])
    folder = source.parents[len(Path(PACKAGES[LITE0].file).parts) - 1]
    site = tmp_path / "site"
    shutil.copytree(folder, site / folder.name)
    monkeypatch.syspath_prepend(site)
    return site / folder.name / PACKAGES[LITE0].file


def test_a_whole_copy_of_the_package_is_accepted(copied: Path) -> None:
    assert copied.is_file()
    build_model(info_of(), "installed")


@pytest.mark.parametrize("damage", ["one bit", "cut", "other weights"])
def test_a_file_with_another_digest_is_refused(damage: str, copied: Path) -> None:
    content = bytearray(copied.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[1000:]
    else:
        content = bytearray(package_file(PACKAGES["tf_efficientnet_lite1"]).read_bytes())
    copied.write_bytes(content)
    with pytest.raises(UserError, match=r"SHA-256 differs\. To install it again: pip") as caught:
        build_model(info_of(), "installed")
    assert str(copied) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_or_package_is_explained(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied.unlink()
    why = re.escape(f"pip install --force-reinstall {PACKAGES[LITE0].name}")
    with pytest.raises(UserError, match=f"weights are not installed.*{why}$"):
        build_model(info_of(), "installed")
    nowhere = PACKAGES[LITE0]._replace(name="no-such-package-of-weights")
    monkeypatch.setattr(installed, "PACKAGES", {LITE0: nowhere})
    assert not installed.is_installed(LITE0)
    with pytest.raises(UserError, match=r"are not installed.*no-such-package-of-weights$"):
        build_model(info_of(), "installed")


def test_a_model_without_a_package_is_refused() -> None:
    with pytest.raises(UserError, match=r"only for tf_efficientnet_lite0, .*, not for resnet18\."):
        build_model(info_of("resnet18"), "installed")
    with pytest.raises(UserError, match="--batch-norm is False, but must be True"):
        Config(model="timm:resnet18", weights="hub", batch_norm=False)


def test_the_digests_are_those_of_the_installed_files() -> None:
    for package in PACKAGES.values():
        found = hashlib.sha256(package_file(package).read_bytes()).hexdigest()
        assert found == package.sha256
        assert package.file.endswith(f"-{found[:8]}.pth")


def test_the_packages_own_file_is_foreign_under_its_own_names(tiny: Dataset) -> None:
    """As a file, it has the names of another library, which do not fit timm's model."""
    config = probe(size=32, weights=str(package_file(PACKAGES[LITE0])), device="cpu")
    with pytest.raises(UserError, match=r"does not fit timm:tf_efficientnet_lite0\. .*; 0 of them"):
        first_state(make_setup(config, tiny, torch.device("cpu")))


@pytest.mark.parametrize("content", [None, b"", b"<html>404</html>"])
def test_the_command_line_names_a_bad_file_of_weights_in_one_line(
    content: bytes | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    path = tmp_path / "mine.pth"
    if content is not None:
        path.write_bytes(content)
    flags = ["--data", "sample", "--size", "0", "--weights", str(path), "--device", "cpu"]
    assert main(["train", "probe", *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "Traceback" not in said


def test_a_damaged_package_is_one_line_on_the_command_line(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    copied.write_bytes(b"damaged")
    flags = ["--data", "sample", "--size", "0", "--device", "cpu"]
    assert main(["train", "probe", *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "SHA-256 differs" in said and str(copied) in said
