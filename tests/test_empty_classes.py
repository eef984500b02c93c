"""Classes without pictures, classes without test pictures, and skipped files are reported."""

import os
import shutil
from pathlib import Path

import pytest
from support.making import Load, Train, make_split
from support.pets import picture, pictures

from hundredfold import Dataset, Run
from hundredfold.cli.main import main
from hundredfold.data.listing import list_folder
from hundredfold.inference.predict import find_pictures
from hundredfold.pictures.walk import walk
from hundredfold.report.report import write_report
from hundredfold.support.errors import UserError


def with_empty_classes(root: Path) -> Path:
    """Write two good classes, and classes without a usable picture."""
    pictures(root, {"cat": 6, "dog": 6})
    for name in ("owl/1.HEIC", "owl/2.heif", "bad/1.jpg", "bad/2.png", "notes/x.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no picture")
    (root / "empty").mkdir()
    return root


EMPTY = (
    "5 classes have no usable picture: bad (2 pictures, damaged or missing), "
    "empty (empty), gone (1 picture, damaged or missing), "
    "notes (1 file: not a picture by its name), "
    "owl (2 files: HEIC is not supported: convert it to JPEG)"
)


def test_every_empty_class_is_reported(tmp_path: Path, load: Load, said: list[str]) -> None:
    root = with_empty_classes(tmp_path / "pets")
    (root / "gone").mkdir()
    (root / "gone/1.png").symlink_to("nowhere.png")
    assert load(root).classes == ("cat", "dog")
    assert f"{EMPTY}. This data is left out." in said
    with pytest.raises(UserError, match=r"empty \(empty\).* omit --strict"):
        load(root, strict=True)


def test_strict_refuses_an_empty_class(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"fish/ray": 6, "fish/eel": 6, "bird/tit": 6})
    load(root, strict=True)
    (root / "bird/owl").mkdir()
    with pytest.raises(UserError, match=r"1 class has no usable picture: bird/owl \(empty\)"):
        load(root, strict=True)


def test_an_empty_split_is_reported(tmp_path: Path, load: Load, said: list[str]) -> None:
    root = pictures(tmp_path / "pets", {"train/cat": 6, "train/dog": 6})
    (root / "test/cat").mkdir(parents=True)
    (root / "test/cat/1.heic").touch()
    (root / "annotations").mkdir()
    load(root)
    assert (
        "1 class has no usable picture: test (1 file: HEIC is not supported: convert it to "
        "JPEG). This data is left out." in said
    )


def test_a_class_with_pictures_in_another_split_is_not_empty(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", {"train/cat": 2, "train/dog": 2, "test/cat": 2})
    (root / "test/dog").mkdir()
    assert list_folder(root).empty_classes == ()


def test_the_error_explains_a_folder_of_unsupported_pictures(tmp_path: Path, load: Load) -> None:
    (tmp_path / "pets/owl").mkdir(parents=True)
    (tmp_path / "pets/owl/1.heic").touch()
    with pytest.raises(UserError, match=r"owl/1.heic \(HEIC is not supported: convert it"):
        load(tmp_path / "pets")


def add_pictures_without_suffix(root: Path) -> list[str]:
    """Write a class of pictures without a suffix in their names; return the names."""
    names = ["owl/1", "owl/2.jpg?w=200", "owl/img.0001"]
    for name in names:
        picture(root / "owl/x.png").rename(root / name)
    (root / "owl/readme").write_text("no picture")
    return names


def test_pictures_without_a_suffix_are_recognised_by_content(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"cat": 6})
    names = add_pictures_without_suffix(root)
    found = load(root)
    assert found.classes == ("cat", "owl")
    assert {n for n in (*found.train.names, *found.test.names) if "owl" in n} == set(names)
    assert walk(root).skipped == (("owl/readme", "not a picture"),)


def test_only_regular_files_are_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", {"cat": 2})
    os.mkfifo(root / "cat/pipe.png")
    (root / "cat/zero.png").symlink_to("/dev/zero")
    (root / "loop").symlink_to("loop")
    found = walk(root)
    assert [name for _, name in found.pictures] == ["cat/cat-0.png", "cat/cat-1.png"]
    assert dict(found.skipped) == {
        "cat/pipe.png": "not a regular file",
        "cat/zero.png": "not a regular file",
        "loop": "not a picture",
    }


def test_prediction_finds_the_same_pictures_as_training(
    tmp_path: Path, run: Run, load: Load, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "pets", {"cat": 12, "elsewhere": 2})
    add_pictures_without_suffix(root)
    for name in (".ipynb_checkpoints/x.png", ".Trash/x.png", "__MACOSX/cat/x.png", "cat/.x.png"):
        picture(root / name)
    (root / "dog").symlink_to(shutil.move(root / "elsewhere", tmp_path / "elsewhere"))
    (root / "cat/1.heic").touch()
    paths = find_pictures(root, said.append)
    assert {str(path.relative_to(root)) for path in paths} == {
        entry.name for entry in list_folder(root).entries
    }
    assert [path.name for path in paths[:12]] == [f"cat-{i}.png" for i in range(12)]
    assert said == [
        f"Skipped in {root}: cat/1.heic (HEIC is not supported: convert it to JPEG), "
        "owl/readme (not a picture)."
    ]
    assert main(["predict", str(run), str(root), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == len(paths) + 1 and "Skipped in" in err
    (root / "cat/again").symlink_to(root)
    with pytest.raises(UserError, match="is a link to a folder above it"):
        find_pictures(root)


def test_classes_without_test_pictures_are_reported(
    tmp_path: Path, load: Load, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"train/cat": 3, "train/dog": 3, "train/hen": 3, "test/dog": 2}
    root = pictures(tmp_path / "pets", counts)
    load(root)
    sentence = (
        "2 of the 3 classes have no test picture, so the accuracy does not cover them: cat, hen."
    )
    assert sentence in said
    for command in (["explore", str(root)], ["train", "--data", str(root), "--epochs", "1"]):
        assert main(command) == 0
        assert sentence in " ".join(" ".join(capsys.readouterr()).split())


def test_the_report_names_classes_without_test_pictures(trained: Train, said: list[str]) -> None:
    tiny = Dataset("tiny", make_split(60, 3), make_split(6, 2), ("ant", "bee", "cow"))
    page = write_report(trained(tiny), tell=said.append)
    sentence = "1 of the 3 classes has no test picture, so the accuracy does not cover it: cow."
    assert sentence in said and sentence in page.read_text()
