"""The choice of a recipe and of the fit, by training pictures alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hundredfold import Config, Run, UserError
from hundredfold.cli.main import main
from hundredfold.models import installed
from hundredfold.recipes import RECIPES
from hundredfold.training import choose as choosing
from hundredfold.training.budget import LADDER
from hundredfold.training.choose import choose
from hundredfold.training.choose_fit import Loaded, load_with_best_fit

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Function that draws a picture (H, W, 3) uint8 of a class."""


def write(root: Path, draw: Draw, counts: dict[str, int], classes: int = 3) -> Path:
    """Write pictures of each class into the folders of some splits; "" for no split."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label in range(classes):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw(rng, label)).save(folder / f"{split} {i}.png")
    return root


def noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def patterns(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return stripes, or rings, or a plain area, which pretrained features tell apart."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    phase = rng.uniform(0, 6)
    waves = [x / 3, y / 3, np.hypot(x - 32, y - 32) / 3][label]
    grey = 128 + 90 * np.sin(waves + phase)
    return (grey[:, :, None] * rng.uniform(0.6, 1, 3)).astype(np.uint8)


def shades(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return small noise whose brightness tells the class: pretrained features are bad at it."""
    return (noise(rng, 32, 32) // 3 + 28 * label).astype(np.uint8)


def end_of_the_long_side(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return a long picture of noise with the class's colour at one of its ends."""
    picture = noise(rng, 96, 32)
    picture[:, 72:] = np.eye(3, dtype=np.uint8)[label] * 255
    return picture


def middle_of_the_long_side(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return a long picture with fine stripes in the middle, and the same at random elsewhere."""
    ends = [patterns(rng, int(rng.integers(3)))[:32, :32] for _ in range(2)]
    return np.concatenate([ends[0], patterns(rng, label)[16:48, 16:48], ends[1]], 1)


def configuring(root: Path | str, **changes: Any) -> Callable[[str], Config]:
    fields = {"data": str(root), "device": "cpu"} | changes
    return lambda name: RECIPES[name](**fields)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training from scratch that is too short for a step, and so never better."""
    monkeypatch.setattr(choosing, "SHORT", 0.01)


def chosen(root: Path | str, **changes: Any) -> tuple[Loaded, list[str]]:
    said: list[str] = []
    return choose(configuring(root, **changes), said.append), said


def test_without_weights_the_network_is_trained_from_scratch(tmp_path: Path) -> None:
    found, said = chosen(write(tmp_path / "pictures", patterns, {"": 24}), size=64, weights="")
    assert found.config.name == "fast"
    assert not any("pretrained" in sentence for sentence in said)


def test_a_setting_that_rules_out_fine_tuning_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "pictures", patterns, {"": 24})
    found, said = chosen(root, size=64, optimizer="sgd")
    assert found.config.name == "fast"
    assert said[0].startswith("The network is trained from scratch. Recipe finetune is not ")
    assert "--layer-decay" in said[0]


def test_photos_that_features_tell_apart_start_from_them(tmp_path: Path) -> None:
    found, said = chosen(write(tmp_path / "pictures", patterns, {"": 24}), size=64)
    assert found.config.name == "finetune" and found.config.weights == "installed"
    assert len(found.dataset.classes) == 3
    assert "Training starts from pretrained features (" in said[-1]
    assert "from scratch for" not in said[-1]


def test_small_pictures_unlike_photos_are_learned_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "SHORT", 6.0)
    root = write(tmp_path / "pictures", shades, {"": 80}, classes=5)
    found, said = chosen(root, size=32, batch_size=32)
    assert found.config.name == "fast" and not found.config.weights and not found.config.budget
    assert said[-1].startswith("The network is trained from scratch: ")


def test_small_pictures_of_which_features_know_more_start_from_them(
    tmp_path: Path, no_time: None
) -> None:
    root = write(tmp_path / "pictures", shades, {"": 20})
    found, said = chosen(root, size=32)
    assert found.config.name == "finetune"
    assert "0.01s were too short for it, or because it diverged." in said[-1]


def test_the_comparison_leaves_most_of_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "SHORT_SHARE", 0.001)  # too short for a step
    root = write(tmp_path / "pictures", shades, {"": 20})
    found, said = chosen(root, size=32, budget="20s")
    assert found.config.name == "finetune"
    assert "0.02s were too short for it, or because it diverged." in said[-1]


def test_cifar_100_may_be_fine_tuned_from_its_path(official: Path) -> None:
    config = RECIPES["finetune"](data=str(official), device="cpu")
    assert len(load_with_best_fit(config).dataset.train) == 50_000


@pytest.mark.parametrize(
    ("changes", "name", "model"),
    [
        ({"model": "whitenet"}, "fast", "whitenet"),
        ({"model": "resnet9"}, "fast", "resnet9"),
        ({"widths": (8, 8, 8)}, "fast", "whitenet"),
        ({"model": "timm:tf_efficientnet_lite1"}, "finetune", "timm:tf_efficientnet_lite1"),
        ({"model": "timm:test_vit"}, "fast", "timm:test_vit"),
        ({"frozen": 0.5}, "finetune", "timm:tf_efficientnet_lite0"),
        ({"layer_decay": 0.8}, "finetune", "timm:tf_efficientnet_lite0"),
        ({"epochs": 0.0}, "finetune", "timm:tf_efficientnet_lite0"),
    ],
)
def test_what_the_user_sets_of_the_model_decides(
    changes: dict[str, Any], name: str, model: str, tmp_path: Path
) -> None:
    found, said = chosen(write(tmp_path / "pictures", patterns, {"": 8}), size=32, **changes)
    assert (found.config.name, found.config.model) == (name, model)
    assert found.config.weights == ("installed" if name == "finetune" else "")
    assert not any("pretrained" in sentence for sentence in said)


def test_without_installed_weights_training_is_from_scratch_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {key: value._replace(name="nowhere") for key, value in installed.PACKAGES.items()}
    monkeypatch.setattr(installed, "PACKAGES", nowhere)
    found, said = chosen(write(tmp_path / "pictures", patterns, {"": 8}), size=32)
    assert found.config.name == "fast"
    assert "The pretrained weights are not installed" in said[0]


def test_cifar_100_is_learned_from_scratch() -> None:
    found, said = chosen("sample")
    assert found.config.name == "fast" and said == []
    found, _ = chosen("sample", budget="1s")
    assert found.config.name in dict(LADDER) and found.config.budget == "1s"


def test_settings_that_suit_no_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--frozen is 0\.5, but must be 0 unless --model is timm"):
        chosen("sample", frozen=0.5)  # from scratch
    root = write(tmp_path / "pictures", patterns, {"": 8})
    with pytest.raises(UserError, match=r"--lr is -1\.0, but must be above 0"):
        chosen(root, lr=-1.0)
    with pytest.raises(UserError, match="--frozen is"):
        chosen(root, frozen=0.5, widths=(8, 8))


def test_a_choice_changes_none_of_the_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    chosen(write(tmp_path / "pictures", patterns, {"": 8}), size=32)
    assert torch.rand(3).equal(want)


def move_test_pictures(root: Path) -> None:
    """Give all test pictures another class."""
    folders = sorted((root / "test").iterdir())
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    for folder, content in zip(folders, contents[1:] + contents[:1], strict=True):
        for name, data in content.items():
            (folder / name).write_bytes(data)


def damage_test_pictures(root: Path) -> None:
    for path in sorted((root / "test").rglob("*.png"))[::2]:
        path.write_bytes(b"damaged")


def replace_test_pictures(root: Path) -> None:
    """Make all test pictures large and square."""
    for path in (root / "test").rglob("*.png"):
        Image.new("RGB", (300, 300), "red").save(path)


@pytest.mark.parametrize(
    "change", [move_test_pictures, damage_test_pictures, replace_test_pictures]
)
def test_test_pictures_have_no_part_in_a_choice(change: Any, tmp_path: Path, no_time: None) -> None:
    root = write(tmp_path / "pictures", end_of_the_long_side, {"train": 15, "test": 40})
    before, said = chosen(root, size=64)
    change(root)
    after, says = chosen(root, size=64)
    choice = [line for line in said if "--fit" in line or "pretrained" in line]
    assert len(choice) == 2 and "losses" in choice[0] and "pretrained features (" in choice[1]
    assert choice == [line for line in says if "--fit" in line or "pretrained" in line]
    assert before.config == after.config


def with_best_fit(root: Path, **changes: Any) -> tuple[str, list[str]]:
    said: list[str] = []
    config = RECIPES["probe"](**{"data": str(root), "device": "cpu", "size": 48} | changes)
    config, dataset, _ = load_with_best_fit(config, said.append)
    assert config.fit == dataset.fit
    return dataset.fit, [sentence for sentence in said if "--fit" in sentence]


def test_a_class_at_the_end_of_the_long_side_is_not_cut_off(tmp_path: Path) -> None:
    root = write(tmp_path / "pictures", end_of_the_long_side, {"": 20})
    fit, said = with_best_fit(root)
    assert fit in ("pad", "squash")
    (sentence,) = said
    assert f"by --fit {fit}" in sentence
    losses = dict(part.split() for part in sentence.rpartition(": ")[2][:-1].split(", "))
    assert float(losses[fit]) < 0.5 * float(losses["crop"])
    for width, height in ((96, 32), (32, 96)):  # upright pictures as well
        turned = tmp_path / f"{width}"
        shutil.copytree(root, turned)
        for path in turned.rglob("*.png"):
            with Image.open(path) as image:
                image.transpose(Image.Transpose.ROTATE_90).save(path)
        assert with_best_fit(turned)[0] != "crop", height


def test_a_class_in_the_middle_is_cropped(tmp_path: Path) -> None:
    root = write(tmp_path / "pictures", middle_of_the_long_side, {"": 30})
    fit, said = with_best_fit(root)
    assert fit == "crop" and len(said) == 1


def test_no_fit_is_chosen_where_none_is_needed(tmp_path: Path) -> None:
    square = write(tmp_path / "square", patterns, {"": 20})
    assert with_best_fit(square) == ("crop", [])
    few = write(tmp_path / "few", end_of_the_long_side, {"train": 9, "test": 40})
    assert with_best_fit(few) == ("crop", [])
    long = write(tmp_path / "long", end_of_the_long_side, {"": 20})
    assert with_best_fit(long, fit="crop") == ("crop", [])
    assert with_best_fit(long, fit="squash") == ("squash", [])
    scratch = {"model": "whitenet", "weights": "", "epochs": 1.0}
    assert with_best_fit(long, **scratch) == ("crop", [])


def test_the_command_line_chooses_for_a_folder(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_time: None,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    root = write(tmp_path / "pictures", end_of_the_long_side, {"": 20})
    flags = ["--data", str(root), "--size", "64", "--device", "cpu", "--epochs", "0.5"]
    assert main(["train", *flags]) == 0
    said = capsys.readouterr().out
    assert "made square by --fit" in said and "starts from pretrained features" in said
    (path,) = (tmp_path / "runs").iterdir()
    run = Run(path)
    assert run.config().name == "finetune" and run.config().fit == run.info().fit != "crop"
    assert main(["evaluate", str(run)]) == 0
    assert "equal the recorded ones to the last digit" in capsys.readouterr().out


def test_the_widths_of_a_network_are_for_training_from_scratch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "pictures", patterns, {"": 10})
    flags = ["--data", str(root), "--widths", "8", "8", "8", "--device", "cpu", "--epochs", "1"]
    assert main(["train", *flags, "--size", "32"]) == 0
    assert "pretrained" not in capsys.readouterr().out
    (path,) = (tmp_path / "runs").iterdir()
    assert Run(path).config().name == "fast" and Run(path).config().widths == (8, 8, 8)
