"""Tables of pictures: contents of cells, and pictures in parquet."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.making import Load
from support.pets import picture, pictures

from hundredfold import Dataset
from hundredfold.cli.main import main
from hundredfold.support.errors import UserError


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "label, line",
    [("nan", 4), ("NaN", 4), ("None", 4), ("null", 4), ("<NA>", 4), ("", 4)],
)
def test_the_error_names_the_line_of_a_row_without_a_class(
    label: str, line: int, tmp_path: Path, load: Load
) -> None:
    table = write(tmp_path / "list.csv", "path,label", "a.png,x", "", f"b.png,{label}")
    with pytest.raises(UserError, match=rf"list\.csv, line {line}: there is no label"):
        load(table)


def test_nan_is_not_a_class_in_parquet(tmp_path: Path, load: Load) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = {"path": ["a.png", "b.png"], "label": [1.0, float("nan")]}
    parquet.write_table(arrow.table(rows), tmp_path / "list.parquet")
    with pytest.raises(UserError, match="line 2: there is no label"):
        load(tmp_path / "list.parquet")


def test_an_unquoted_comma_in_a_path_is_refused(tmp_path: Path, load: Load) -> None:
    table = write(tmp_path / "list.csv", "path,label", "a.png,x,", "b, c.png,y")
    with pytest.raises(UserError, match="line 3: there are more cells than in the header"):
        load(table)


@pytest.mark.parametrize("header", ["path,label,label", "path,label, LABEL"])
def test_two_columns_of_one_name_are_refused(header: str, tmp_path: Path, load: Load) -> None:
    table = write(tmp_path / "list.csv", header, "a.png,cat,dog")
    with pytest.raises(UserError, match=r"has 2 columns named label\. "):
        load(table)


def test_paths_may_have_backslashes_or_another_unicode_form(tmp_path: Path, load: Load) -> None:
    pictures(tmp_path, {"cat": 4})
    picture(tmp_path / unicodedata.normalize("NFD", "café") / "ü.png")
    picture(tmp_path / "odd\\name.png")
    table = write(
        tmp_path / "list.csv",
        "path,label,split",
        *(f"cat\\cat-{i}.png,cat,Train" for i in range(3)),
        "cat\\cat-3.png,cat,test_set",
        "café/ü.png,caf" + unicodedata.normalize("NFD", "é") + ",train",
        "odd\\name.png,café,testing",
    )
    found = load(table, strict=True)
    assert found.classes == ("café", "cat")
    assert found.test.names == ("cat/cat-3.png", "odd\\name.png")


def test_long_cells_are_shortened_in_errors(
    tmp_path: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 70_000
    for lines in (
        ("path,label", f"a.png,{long}"),
        ("path,label", f"{long},x"),
        ("path,label,split", f"a.png,x,{long}"),
        (f"{long},y", "a.png,x"),
        (",".join(f"column {i}" for i in range(5000)), "a.png,x"),
    ):
        with pytest.raises(UserError) as error:
            load(write(tmp_path / "list.csv", *lines))
        assert len(str(error.value)) < 500
    for command in (
        ["train", "--data", long],
        ["train", long],
        ["train", "--model", long],
        ["predict", long],
        ["report", long],
        ["explore", long],
    ):
        assert main(command) == 2
        assert len(capsys.readouterr().err) < 1000


def test_a_table_too_large_for_memory_is_refused(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.table.MAX_BYTES", 2**20)
    with pytest.raises(UserError, match="not a regular file of at most 1 MiB"):
        load(write(tmp_path / "list.csv", "path,label", "x" * 2**20))


def parquet_of(path: Path, columns: dict[str, Any], names: dict[str, list[str]]) -> Path:
    """Write a table with class names as Hugging Face's `datasets` does."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {
        column: {"names": classes, "_type": "ClassLabel"} for column, classes in names.items()
    }
    notes = {"info": {"features": features | {"image": {"_type": "Image"}}}}
    table = arrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(notes)})
    parquet.write_table(table, path)
    return path


def pixels(dataset: Dataset) -> dict[str, set[tuple[int, ...]]]:
    """Return the labels and pixels of each split as a set, without an order."""
    return {
        name: {
            (label, *image.flatten().tolist())
            for image, label in zip(split.images, split.labels.tolist(), strict=True)
        }
        for name, split in dataset.splits.items()
    }


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_pictures_in_parquet_are_read(
    kind: str, tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"train/cat": 3, "train/dog": 3, "test/dog": 2})
    files = sorted(root.rglob("*.png"), key=lambda path: path.name)
    data = [file.read_bytes() for file in files]
    names = [None if i % 2 else file.name for i, file in enumerate(files)]
    struct = [{"bytes": content, "path": name} for content, name in zip(data, names, strict=True)]
    columns = {
        "img": struct if kind == "struct" else data,
        "fine_label": [int(file.parent.name == "dog") for file in files],
        "split": [file.parts[-3] for file in files],
    }
    table = parquet_of(tmp_path / "pets.parquet", columns, {"fine_label": ["cat", "dog"]})
    found = load(table, strict=True)
    assert found.classes == ("cat", "dog") and found.source == str(table)
    assert pixels(found) == pixels(load(root))
    assert load(table).digest() == found.digest()


def test_parquet_rows_without_a_picture_are_named_and_those_without_a_class_refused(
    tmp_path: Path, load: Load, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"label": ["cat", "dog"]}
    images: list[dict[str, Any]] = [
        {"bytes": picture(tmp_path / f"{i}.png").read_bytes(), "path": "x.png"} for i in range(6)
    ]
    images[1]["bytes"] = None
    columns = {"image": images, "label": [0, 1, 0, 0, 1, 1]}
    table = parquet_of(tmp_path / "a.parquet", columns, names)
    found = load(table)
    assert len(found.train) + len(found.test) == 5
    assert any(f"{table} has 1 row without a picture: 2" in sentence for sentence in said)
    with pytest.raises(UserError, match="1 row without a picture: 2"):
        load(table, strict=True)
    columns = {"image": [images[0]] * 2, "label": [0, -1]}
    table = parquet_of(tmp_path / "b.parquet", columns, names)
    with pytest.raises(UserError, match=r"b\.parquet, line 3: there is no label"):
        load(table)
    assert main(["audit", str(table)]) == 2
    assert len(capsys.readouterr().err) < 300
