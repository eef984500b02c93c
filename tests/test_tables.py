"""Tables of pictures: what their cells may be, and pictures within parquet."""

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
def test_a_row_without_a_class_is_refused_with_its_line(
    label: str, line: int, tmp_path: Path, load: Load
) -> None:
    table = write(tmp_path / "list.csv", "path,label", "a.png,x", "", f"b.png,{label}")
    with pytest.raises(UserError, match=rf"list\.csv, line {line}: no label"):
        load(table)


def test_a_number_that_is_none_is_no_class_in_parquet_either(tmp_path: Path, load: Load) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = {"path": ["a.png", "b.png"], "label": [1.0, float("nan")]}
    parquet.write_table(arrow.table(rows), tmp_path / "list.parquet")
    with pytest.raises(UserError, match="line 2: no label"):
        load(tmp_path / "list.parquet")


def test_a_comma_within_a_path_is_not_the_end_of_it(tmp_path: Path, load: Load) -> None:
    table = write(tmp_path / "list.csv", "path,label", "a.png,x,", "b, c.png,y")
    with pytest.raises(UserError, match="line 3: more cells than the header has"):
        load(table)


def test_paths_may_be_written_as_on_windows_or_in_another_form(tmp_path: Path, load: Load) -> None:
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


def test_cells_are_never_printed_whole(
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


def test_a_table_that_memory_may_not_hold_is_refused(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.table.MOST_BYTES", 2**20)
    with pytest.raises(UserError, match="no regular file of at most 1 MiB"):
        load(write(tmp_path / "list.csv", "path,label", "x" * 2**20))


def parquet_of(path: Path, columns: dict[str, Any], names: dict[str, list[str]]) -> Path:
    """Write a table as Hugging Face's `datasets` does, with the names of classes."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {column: {"names": some, "_type": "ClassLabel"} for column, some in names.items()}
    notes = {"info": {"features": features | {"image": {"_type": "Image"}}}}
    table = arrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(notes)})
    parquet.write_table(table, path)
    return path


def pixels(dataset: Dataset) -> dict[str, set[tuple[int, ...]]]:
    """Return each picture of each split, with its label, whatever their order."""
    return {
        name: {
            (label, *image.flatten().tolist())
            for image, label in zip(split.images, split.labels.tolist(), strict=True)
        }
        for name, split in dataset.splits.items()
    }


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_pictures_within_parquet_are_read(
    kind: str, tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"train/cat": 3, "train/dog": 3, "test/dog": 2})
    files = sorted(root.rglob("*.png"), key=lambda path: path.name)
    data = [file.read_bytes() for file in files]
    names = [None if i % 2 else file.name for i, file in enumerate(files)]
    struct = [{"bytes": each, "path": name} for each, name in zip(data, names, strict=True)]
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


def test_rows_of_parquet_without_a_picture_or_a_class_are_refused(
    tmp_path: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    data = picture(tmp_path / "x.png").read_bytes()
    names = {"label": ["cat", "dog"]}
    some = [{"bytes": data, "path": "x.png"}, {"bytes": None, "path": "y.png"}]
    table = parquet_of(tmp_path / "a.parquet", {"image": some, "label": [0, 1]}, names)
    with pytest.raises(UserError, match=r"a\.parquet, row 2: no picture"):
        load(table)
    columns = {"image": [some[0]] * 2, "label": [0, -1]}
    table = parquet_of(tmp_path / "b.parquet", columns, names)
    with pytest.raises(UserError, match=r"b\.parquet, line 3: no label"):
        load(table)
    assert main(["audit", str(table)]) == 2
    assert len(capsys.readouterr().err) < 300
