"""Interpretation of folder names: wrappers, splits, superclasses, and classes."""

import unicodedata
from pathlib import Path

import pytest
from support.making import Load
from support.pets import picture, pictures

from hundredfold import Dataset
from hundredfold.data.layout import parse_split_name
from hundredfold.support.errors import UserError


@pytest.mark.parametrize(
    "name, want",
    [
        ("train", ("train", ())),
        ("training_set", ("train", ())),
        ("TrainSet", ("train", ())),
        ("TRAIN2017", ("train", ())),
        ("testset", ("test", ())),
        ("seg_train", ("train", ("seg",))),
        ("seg_pred", ("test", ("seg",))),
        ("images-val", ("validation", ())),
        ("validate", ("validation", ())),
        ("eval", ("validation", ())),
        ("dataset", None),
        ("trains", None),
        ("terrain", None),
        ("test_train", None),
        ("éval", None),
    ],
)
def test_split_names_are_parsed(name: str, want: tuple[str, tuple[str, ...]] | None) -> None:
    assert parse_split_name(name) == want


def sizes(found: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in found.splits.items()}


@pytest.mark.parametrize(
    "train, test",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train", "validate"),
        ("train", "eval"),
        ("train2017", "val2017"),
        ("pets-TRAIN", "pets-TEST"),
        ("wrap/dataset/train", "wrap/dataset/test"),
    ],
)
def test_splits_are_recognised_by_many_names(
    train: str, test: str, tmp_path: Path, load: Load
) -> None:
    counts = {f"{train}/cat": 3, f"{train}/dog": 4, f"{test}/cat": 2, f"{test}/dog": 1}
    found = load(pictures(tmp_path / "pets", counts))
    assert found.classes == ("cat", "dog") and found.superclasses == ()
    assert sizes(found) == {"train": 7, "test": 3}


@pytest.mark.parametrize("splits", [("val", "test"), ("validation", "testing")])
def test_splits_without_training_pictures_are_refused(
    splits: tuple[str, str], tmp_path: Path, load: Load
) -> None:
    counts = {f"{split}/{name}": 2 for split in splits for name in ("cat", "dog")}
    with pytest.raises(UserError, match="no training pictures"):
        load(pictures(tmp_path / "pets", counts))


@pytest.mark.parametrize(
    "counts",
    [
        {"learn/cat": 2, "learn/dog": 2, "proof/cat": 2, "proof/dog": 2},
        {"part 1/cat": 2, "part 1/dog": 2, "part 1/hen": 2, "part 2/cat": 2, "part 2/dog": 2},
        {"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2},
        {"cat/images": 2, "dog/images": 2},
    ],
)
def test_superclasses_with_the_same_classes_are_refused(
    counts: dict[str, int], tmp_path: Path, load: Load
) -> None:
    with pytest.raises(UserError, match="contain folders with the same names"):
        load(pictures(tmp_path / "pets", counts))


@pytest.mark.parametrize("names", [("cat_train", "dog_train"), ("trainA", "trainB")])
def test_classes_named_after_splits_are_refused(
    names: tuple[str, str], tmp_path: Path, load: Load
) -> None:
    classes = [*names, *(name.replace("train", "test") for name in names)]
    with pytest.raises(UserError, match="look like two splits of one class"):
        load(pictures(tmp_path / "pets", dict.fromkeys(classes, 2)))


@pytest.mark.parametrize(
    "counts, superclasses",
    [
        ({"steam train": 6, "test tube": 6}, ()),
        ({"dev board": 6, "test board": 6, "cat": 6}, ()),
        ({"train/steam": 6, "train/bullet": 6, "car/vw": 6, "car/bmw": 6}, ("car", "train")),
    ],
)
def test_class_names_may_contain_split_words(
    counts: dict[str, int], superclasses: tuple[str, ...], tmp_path: Path, load: Load
) -> None:
    found = load(pictures(tmp_path / "pets", counts))
    assert set(found.classes) == {name.split("/")[-1] for name in counts}
    assert found.superclasses == superclasses


@pytest.mark.parametrize("bare", ["pets_test", "pets_pred/pets_pred"])
def test_a_split_without_labels_is_left_out_and_reported(
    bare: str, tmp_path: Path, load: Load, said: list[str]
) -> None:
    counts = {"pets_train/cat": 9, "pets_train/dog": 9, "pets_val/cat": 1, bare: 4}
    root = pictures(tmp_path / "pets", counts)
    assert sizes(load(root)) == {"train": 18, "test": 1}
    top = Path(bare).parts[0]
    reason = f"4 pictures in {top} have no label, because they are not in a class folder"
    assert f"{reason}. This data is left out." in said
    with pytest.raises(UserError, match="have no label"):
        load(root, strict=True)


def test_pictures_outside_of_splits_are_left_out_and_reported(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    counts = {"train/cat": 3, "train/dog": 3, "test/cat": 2, "extra/cat": 2, "hen": 1}
    root = pictures(tmp_path / "pets", counts)
    assert sizes(load(root)) == {"train": 6, "test": 2}
    assert "2 pictures in extra belong to none of the splits. This data is left out." in said
    assert "1 picture in hen belongs to none of the splits. This data is left out." in said


def test_two_folders_of_one_split_are_reported(tmp_path: Path, load: Load, said: list[str]) -> None:
    folders = ("train", "dev", "valid", "test")
    counts = {f"{split}/{name}": 2 for split in folders for name in ("cat", "dog")}
    assert sizes(load(pictures(tmp_path / "pets", counts))) == {
        "train": 4,
        "validation": 8,
        "test": 4,
    }
    assert "The folders dev and valid are all used as the validation split." in said


def test_wrapper_folders_are_ignored(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"cat": 3, "dog": 3})
    want = load(root).digest()
    root.rename(tmp_path / "dataset")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / "dataset").rename(tmp_path / name / "dataset")
        (tmp_path / name).rename(tmp_path / "dataset")
    found = load(tmp_path / "dataset")
    assert found.digest() == want and found.superclasses == ()
    assert found.train.names[0].startswith("dataset/dataset/")


def test_two_unicode_forms_are_one_class(tmp_path: Path, load: Load, said: list[str]) -> None:
    root = pictures(tmp_path / "pets", {"train/dog": 3, "val/dog": 2})
    for split, form in (("train", "NFC"), ("val", "NFD")):
        picture(root / split / unicodedata.normalize(form, "café") / f"{split}.png")  # type: ignore[arg-type]
    found = load(root)
    assert found.classes == ("café", "dog") and sizes(found) == {"train": 4, "test": 3}
    assert "The name 'café' is written in 2 forms of Unicode. They are treated as one name." in said


@pytest.mark.parametrize("other", ["Dog", "dog ", "\uff44\uff4f\uff47"])
def test_similar_class_names_are_reported(
    other: str, tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"dog": 6, other: 6, "hen": 6})
    assert set(load(root).classes) == {"dog", other, "hen"}
    (sentence,) = (text for text in said if "differ only in case, form or spaces" in text)
    assert repr("dog") in sentence and repr(other) in sentence and "hen" not in sentence
