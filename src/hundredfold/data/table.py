"""A list of pictures in place of folders: CSV, TSV or parquet, a row a picture."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from hundredfold.data.listing import SPLITS, Entry, Listing, in_order, qualified
from hundredfold.errors import UserError, extra

SUFFIXES = (".csv", ".tsv", ".parquet")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "class_name", "category", "fine_label", "target"),
    "split": ("split", "subset", "set"),
    "parent": ("superclass", "coarse_label", "parent", "supercategory"),
}
"""What each column may be called, in any case; the first two are needed."""

Row = Mapping[str, str]


def list_table(path: Path) -> Listing:
    """List the pictures that a table names; relative paths begin at the table's own folder.

    Raises:
        UserError: the table cannot be read, lacks a column, has an empty path or class, or names
            superclasses for some pictures only.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _text_rows(path)
    if not rows:
        raise UserError(f"{path} has no rows: wanted is a header and a row a picture.")
    columns = _columns(path, list(rows[0]))
    entries = [_entry(path, row, columns, number) for number, row in enumerate(rows, 2)]
    bare = [number for number, entry in enumerate(entries, 2) if not entry.parent]
    if 0 < len(bare) < len(entries):
        raise UserError(f"{path}, line {bare[0]}: no superclass, where other lines have one.")
    return Listing(in_order(qualified(entries)), ())


def _text_rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            kind = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
            return [
                {key: value or "" for key, value in row.items() if key is not None}
                for row in csv.DictReader(file, dialect=kind)
            ]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of UTF-8 text: {error}.") from error


def _parquet_rows(path: Path) -> list[Row]:
    with extra("parquet", f"To read {path} you need"):
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  # an extra
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise UserError(f"Cannot read {path}: {error}.") from error
    return [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
    ]


def _columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the table's own name of each column that is there, by what it holds."""
    lower = {name.strip().lower(): name for name in names}
    found = {
        what: lower[alias]
        for what, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in lower
    }
    for what in ("path", "label"):
        if what not in found:
            raise UserError(
                f"{path} has no column {what} (or {', '.join(COLUMNS[what][1:])}): "
                f"its columns are {', '.join(names)}."
            )
    return found


def _entry(path: Path, row: Row, columns: Mapping[str, str], line: int) -> Entry:
    values = {what: row.get(column, "").strip() for what, column in columns.items()}
    for what in ("path", "label"):
        if not values[what]:
            raise UserError(f"{path}, line {line}: no {what}.")
        if "\0" in values[what]:
            raise UserError(f"{path}, line {line}: the {what} has a zero byte.")
    split = values.get("split", "").lower()
    if split and split not in SPLITS:
        raise UserError(f"{path}, line {line}: the split {split!r} is none of {', '.join(SPLITS)}.")
    return Entry(
        path=path.parent / values["path"],
        name=Path(values["path"]).as_posix(),
        split=SPLITS.get(split, ""),
        label=values["label"],
        parent=values.get("parent", ""),
    )
