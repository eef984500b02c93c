"""Recipes for other numbers of pictures; the same result from the library and the command line."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hundredfold
from hundredfold import Run, fast, train
from hundredfold.cli.main import main
from hundredfold.config import FlexibleFloat
from hundredfold.recipes import RECIPES
from hundredfold.support.jsonio import to_json
from hundredfold.training.fitting import CIFAR_PICTURES, fitted

names = st.sampled_from(sorted(RECIPES))


def test_the_package_exports_every_recipe() -> None:
    exported = {name for name, value in vars(hundredfold).items() if value in RECIPES.values()}
    assert exported == {name.replace("-", "_") for name in RECIPES}
    assert exported <= set(hundredfold.__all__)


@given(names, st.integers(CIFAR_PICTURES, 10**8))
def test_a_recipe_does_not_change_for_cifar_100_or_more_pictures(name: str, pictures: int) -> None:
    assert fitted(RECIPES[name](), pictures) == RECIPES[name]()


@given(names, st.integers(1, CIFAR_PICTURES))
def test_one_more_picture_changes_the_schedule_only_slightly(name: str, pictures: int) -> None:
    recipe = RECIPES[name]()
    one, next_one = fitted(recipe, pictures), fitted(recipe, pictures + 1)
    most = 20 if recipe.weights else 60
    assert one.epochs - next_one.epochs == pytest.approx(0, abs=0.01 + most / pictures)
    shown = min(recipe.epochs * CIFAR_PICTURES, most * pictures)
    assert one.epochs * pictures == pytest.approx(shown, abs=0.01 * pictures)


@pytest.mark.parametrize(
    ("pictures", "batch"), [(2, 16), (57, 16), (250, 16), (1000, 64), (4750, 256), (9000, 512)]
)
def test_an_epoch_of_few_pictures_has_about_sixteen_steps(pictures: int, batch: int) -> None:
    assert fitted(fast(), pictures).batch_size == batch


@pytest.mark.parametrize(
    ("pictures", "share"), [(50_000, 1), (4750, 256 / 512), (1000, 64 / 512), (4, 4 / 512)]
)
def test_the_learning_rate_falls_with_the_root_of_the_batch(pictures: int, share: float) -> None:
    assert fitted(fast(), pictures).lr == pytest.approx(0.15 * math.sqrt(share))
    assert fitted(fast(), pictures).muon_lr == 0.15


@given(names, st.integers(1, 10**6))
def test_fitting_twice_is_fitting_once(name: str, pictures: int) -> None:
    once = fitted(RECIPES[name](), pictures)
    assert fitted(once, 10) == once


@given(names, st.integers(1, 10**6))
def test_values_that_the_user_sets_are_not_adapted(name: str, pictures: int) -> None:
    recipe = RECIPES[name]()
    own: dict[str, Any] = {"epochs": float(recipe.epochs), "lr": float(recipe.lr)}
    own |= {"batch_size": 512}
    for config in (RECIPES[name](**own), dataclasses.replace(recipe, **own)):
        found = fitted(config, pictures)
        assert {key: getattr(found, key) for key in own} == own


def test_a_configuration_from_a_file_is_not_adapted(tmp_path: Path) -> None:
    assert isinstance(fast().epochs, FlexibleFloat)
    root = photos(tmp_path / "photos")
    (tmp_path / "mine.json").write_text(to_json(fast(data=str(root), widths=(8, 8), epochs=1)))
    assert main(["train", "mine.json", "--quiet"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert Run(run).config().batch_size == 512


def photos(root: Path) -> Path:
    """Write 6 training and 2 test pictures of two classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for level, name in ((60, "dark"), (180, "light")):
            for i in range(count):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(level)).save(path)
    return root


def train_both_ways(out: Path, recipe: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with the library and with the command line; return the content of both config.json."""
    found = []
    flags = []
    for key, value in changes.items():
        values = map(str, value if isinstance(value, tuple) else [value])
        flags += [f"--{key.replace('_', '-')}", *values]
    train(RECIPES[recipe](**changes, out=str(out / "library")), quiet=True)
    assert main(["train", recipe, *flags, "--out", str(out / "command"), "--quiet"]) == 0
    for way in ("library", "command"):
        (run,) = (out / way).iterdir()
        found.append(json.loads((run / "config.json").read_text()) | {"out": ""})
    return found


@pytest.mark.parametrize("source", ["folder", "archive", "table", "sample"])
def test_library_and_command_line_train_the_same_from_every_source(
    tmp_path: Path, source: str
) -> None:
    root = photos(tmp_path / "photos")
    changes: dict[str, Any] = {"widths": (4, 4)}
    if source == "sample":  # 2,500 pictures
        changes |= {"data": "sample", "epochs": 0.02}
    elif source == "table":
        rows = [f"{path},{path.parts[-3]},{path.parts[-2]}" for path in sorted(root.rglob("*.png"))]
        (tmp_path / "list.csv").write_text("\n".join(["path,split,label", *rows]))
        changes["data"] = str(tmp_path / "list.csv")
    else:
        changes["data"] = str(root)
        if source == "archive":
            changes["data"] = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    library, command = train_both_ways(tmp_path, "fast", changes)
    assert library == command
    want = fitted(fast(), 2500 if source == "sample" else 6)
    assert library["batch_size"] == want.batch_size
    assert library["lr"] == want.lr
    assert library["epochs"] == (0.02 if source == "sample" else 60)


PRETRAINED = ("probe", "finetune")


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("fast", *PRETRAINED)])
def test_library_and_command_line_train_the_same_with_every_recipe(
    tmp_path: Path, recipe: str
) -> None:
    stages = 4 if recipe.startswith("tutorial") else 2
    changes: dict[str, Any] = {"data": str(photos(tmp_path / "photos")), "widths": (4,) * stages}
    changes["epochs"] = 0.5  # the test above shows that epochs are adapted as well
    if recipe.startswith("tutorial"):
        changes["labels"] = "fine"
    library, command = train_both_ways(tmp_path, recipe, changes)
    assert library == command
    want = fitted(RECIPES[recipe](), 6)
    fields = ("batch_size", "lr")
    assert {key: library[key] for key in fields} == {key: getattr(want, key) for key in fields}


@pytest.mark.parametrize(("recipe", "epochs"), [("probe", 0), ("finetune", 1)])
def test_library_and_command_line_train_the_same_from_pretrained_features(
    tmp_path: Path, recipe: str, epochs: int
) -> None:
    changes = {"data": str(photos(tmp_path / "photos")), "size": 32, "epochs": float(epochs)}
    library, command = train_both_ways(tmp_path, recipe, changes)
    assert library == command
    assert library["weights"] == "installed"
    want = fitted(RECIPES[recipe](), 6)
    assert library["batch_size"] == want.batch_size == 16
    assert library["lr"] == want.lr == pytest.approx(RECIPES[recipe]().lr * (6 / 32) ** 0.5)
    for way in ("library", "command"):
        (run,) = (tmp_path / way).iterdir()
        assert len(Run(run).history()) == epochs
