"""Recipes for other numbers of pictures, and one result through both doors."""

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

from hundredfold import Run, fast, train
from hundredfold.cli.main import main
from hundredfold.config import FlexibleFloat
from hundredfold.recipes import CIFAR_PICTURES, RECIPES, fitted
from hundredfold.support.jsonio import to_json

names = st.sampled_from(sorted(RECIPES))


@given(names, st.integers(CIFAR_PICTURES, 10**8))
def test_a_recipe_is_as_it_is_for_cifar_and_more(name: str, pictures: int) -> None:
    assert fitted(RECIPES[name](), pictures) == RECIPES[name]()


@given(names, st.integers(1, CIFAR_PICTURES))
def test_no_picture_more_or_less_makes_a_jump(name: str, pictures: int) -> None:
    recipe = RECIPES[name]()
    one, next_one = fitted(recipe, pictures), fitted(recipe, pictures + 1)
    assert one.epochs - next_one.epochs == pytest.approx(0, abs=0.01 + 60 / pictures)
    shown = min(recipe.epochs * CIFAR_PICTURES, 60 * pictures)
    assert one.epochs * pictures == pytest.approx(shown, abs=0.01 * pictures)


@pytest.mark.parametrize(
    ("pictures", "batch"), [(2, 16), (57, 16), (250, 16), (1000, 64), (4750, 256), (9000, 512)]
)
def test_an_epoch_of_few_pictures_has_some_sixteen_steps(pictures: int, batch: int) -> None:
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
def test_a_value_of_the_users_own_stays(name: str, pictures: int) -> None:
    recipe = RECIPES[name]()
    own: dict[str, Any] = {"epochs": float(recipe.epochs), "lr": float(recipe.lr)}
    own |= {"batch_size": 512}
    for config in (RECIPES[name](**own), dataclasses.replace(recipe, **own)):
        found = fitted(config, pictures)
        assert {key: getattr(found, key) for key in own} == own


def test_a_configuration_in_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    assert isinstance(fast().epochs, FlexibleFloat)
    root = photos(tmp_path / "photos")
    (tmp_path / "mine.json").write_text(to_json(fast(data=str(root), widths=(8, 8), epochs=1)))
    assert main(["train", "mine.json", "--quiet"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert Run(run).config().batch_size == 512


def photos(root: Path) -> Path:
    """Write 6 + 2 pictures of two classes, with splits."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for level, name in ((60, "dark"), (180, "light")):
            for i in range(count):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(level)).save(path)
    return root


def both_doors(out: Path, recipe: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Train by the library and by the command line; return what each config.json has."""
    found = []
    flags = []
    for key, value in changes.items():
        values = map(str, value if isinstance(value, tuple) else [value])
        flags += [f"--{key.replace('_', '-')}", *values]
    train(RECIPES[recipe](**changes, out=str(out / "library")), quiet=True)
    assert main(["train", recipe, *flags, "--out", str(out / "command"), "--quiet"]) == 0
    for door in ("library", "command"):
        (run,) = (out / door).iterdir()
        found.append(json.loads((run / "config.json").read_text()) | {"out": ""})
    return found


@pytest.mark.parametrize("source", ["folder", "archive", "table", "sample"])
def test_both_doors_train_the_same_from_every_source(tmp_path: Path, source: str) -> None:
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
    library, command = both_doors(tmp_path, "fast", changes)
    assert library == command
    want = fitted(fast(), 2500 if source == "sample" else 6)
    assert library["batch_size"] == want.batch_size
    assert library["lr"] == want.lr
    assert library["epochs"] == (0.02 if source == "sample" else 60)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("fast", "finetune")])
def test_both_doors_train_the_same_by_every_recipe(tmp_path: Path, recipe: str) -> None:
    stages = 4 if recipe.startswith("tutorial") else 2
    changes: dict[str, Any] = {"data": str(photos(tmp_path / "photos")), "widths": (4,) * stages}
    changes["epochs"] = 0.5  # of fast it is seen above that they are fitted, too
    if recipe.startswith("tutorial"):
        changes["labels"] = "fine"
    library, command = both_doors(tmp_path, recipe, changes)
    assert library == command
    want = fitted(RECIPES[recipe](), 6)
    fields = ("batch_size", "lr")
    assert {key: library[key] for key in fields} == {key: getattr(want, key) for key in fields}
