"""Listing folders: splits, classes, superclasses, and skipped files."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.making import Load
from support.pets import picture, pictures

from hundredfold.cli.main import main
from hundredfold.data.listing import list_folder
from hundredfold.pictures.walk import natural_key
from hundredfold.support.errors import UserError


def test_train_val_and_test_folders_are_splits(tmp_path: Path, load: Load) -> None:
    counts = {"train/cat": 3, "train/dog": 4, "val/cat": 1, "val/dog": 2, "test/dog": 2}
    found = load(pictures(tmp_path / "pets", counts))
    assert found.classes == ("cat", "dog") and found.superclasses == ()
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 7,
        "test": 2,
        "validation": 3,
    }
    assert found.test.labels.tolist() == [1, 1]  # by class name: there is no test cat
    assert found.train.names[0] == "train/cat/train-cat-0.png"


def test_two_levels_of_folders_are_superclass_and_class(tmp_path: Path, load: Load) -> None:
    counts = {"fish/ray": 5, "fish/eel": 5, "tree/oak": 5, "tree/other": 5, "fish/other": 5}
    found = load(pictures(tmp_path, counts))
    assert found.superclasses == ("fish", "tree")
    assert dict(zip(found.classes, found.parents, strict=True)) == {
        "eel": 0,
        "ray": 0,
        "fish/other": 0,
        "oak": 1,
        "tree/other": 1,
    }


def test_classes_are_in_natural_order(tmp_path: Path, load: Load) -> None:
    found = load(pictures(tmp_path, {f"class {i}": 2 for i in (1, 2, 10, 11, 9)}))
    assert found.classes == ("class 1", "class 2", "class 9", "class 10", "class 11")


@given(st.lists(st.integers(0, 10**6)))
def test_natural_order_sorts_numbers_by_value(numbers: list[int]) -> None:
    names = sorted((f"x{number}.png" for number in numbers), key=natural_key)
    assert [int(name[1:-4]) for name in names] == sorted(numbers)


def numbers_and_texts(name: str) -> list[tuple[int, int | str]]:
    """Return what a natural order compares, one after the other."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


@given(st.lists(st.text("aAbé٣0123456789 ._-", max_size=12)))
def test_natural_order_compares_numbers_and_texts(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(names, key=numbers_and_texts)


def test_without_a_test_split_the_validation_split_replaces_it(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    counts = {"Train/a": 3, "Train/b": 3, "valid/a": 2, "valid/b": 1}
    found = load(pictures(tmp_path, counts))
    assert len(found.test) == 3 and found.validation is None
    assert said[0] == (
        "There is no test split, so the validation pictures are used as the test pictures."
    )


def test_classes_that_training_lacks_are_left_out(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path, {"train/a": 2, "train/b": 2, "test/b": 2, "test/zebra": 3})
    found = load(root)
    assert found.classes == ("a", "b") and len(found.test) == 2
    assert (
        "classes that the training pictures lack: zebra (3). These pictures are left out."
        in said[0]
    )
    with pytest.raises(UserError, match="zebra"):
        load(root, strict=True)


def test_hidden_and_system_entries_are_skipped(tmp_path: Path, load: Load, said: list[str]) -> None:
    root = pictures(tmp_path / "pets", {"Ünï ç/deep": 0, "Ünï ç": 4, "dog": 4})
    for name in (".DS_Store", "dog/._dog-1.png", "dog/Thumbs.db", "notes.txt", "dog/a.txt"):
        (root / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints/x.png", "__MACOSX/dog/x.png", "dog/.hidden/x.png"):
        picture(root / name)
    picture(root / "dog/UPPER.PNG")
    picture(root / "dog/photo.JPeG")
    found = load(root)
    assert found.classes == ("dog", "Ünï ç")
    assert len(found.train) + len(found.test) == 10
    assert "8 other files skipped." in said[-1]
    skipped = {item.name: item.reason for item in list_folder(root).skipped}
    assert skipped["notes.txt"] == "not a picture by its name"
    assert skipped["dog/.hidden"] == skipped["__MACOSX"] == "hidden or a system file"


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"cat": 2, "dog": 2})
    (root / "cat/again").symlink_to(root)
    with pytest.raises(UserError, match="cat/again is a link to a folder above it"):
        load(root)


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path, load: Load) -> None:
    pictures(tmp_path / "elsewhere", {"dog": 3})
    root = pictures(tmp_path / "pets", {"cat": 3})
    (root / "dog").symlink_to(tmp_path / "elsewhere/dog")
    assert load(root).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "counts, why",
    [
        ({"a": 3}, "has 1 class with training pictures"),
        ({"a": 1, "b": 1}, "has no picture left for testing"),
        ({".": 3, "a": 2}, "is in no class"),
        ({"a": 2, "a/b": 2}, "pictures at two depths"),
        ({"a/b/c": 2, "a/d/e": 2, "f/g/h": 2}, "nested too deep"),
        ({}, "contains no pictures"),
    ],
)
def test_layouts_without_clear_classes_are_refused(
    counts: dict[str, int], why: str, tmp_path: Path, load: Load
) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    with pytest.raises(UserError, match=why):
        load(pictures(root, counts))


@pytest.mark.parametrize("others", [("bus", "car"), ("Test pictures", "val-de-loire")])
def test_a_class_may_be_named_train(others: tuple[str, str], tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "photos", dict.fromkeys(("train", *others), 4))
    found = load(root)
    assert set(found.classes) == {"train", *others}
    assert len(found.train) + len(found.test) == 12
    pictures(root / "other", {"train": 3, "test": 3})
    with pytest.raises(UserError, match=r"-0\.png is in no class"):
        load(root / "other")


def test_undecodable_names_are_escaped(
    tmp_path: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "photos", {"cat": 8, "dog": 8})
    try:
        (root / "cat").rename(root / os.fsdecode(b"c\xe4t"))
    except OSError:
        pytest.skip("the file system takes only text")
    assert load(root).classes == ("c\\xe4t", "dog")
    flags = ["--epochs", "1", "--widths", "8", "8", "--device", "cpu", "--quiet"]
    assert main(["train", "--data", str(root), *flags]) == 0
    (run,) = Path("runs").iterdir()
    assert main(["evaluate", str(run)]) == main(["report", str(run)]) == 0
    assert main(["audit", str(root), "--no-labels", "--no-near"]) == 0
    capsys.readouterr()
    assert main(["audit", str(root), "--no-labels", "--no-near", "--fix", "x.csv"]) == 2
    assert (
        "c\\xe4t/cat-0.png contains a line break or is not valid UTF-8" in capsys.readouterr().err
    )
    moved = root.rename(os.fsdecode(b"sch\xf6n"))
    assert main(["train", "--data", str(moved), *flags]) == 0
    assert main(["evaluate", str(max(Path("runs").iterdir()))]) == 0
