"""A list of pictures in place of folders: CSV, TSV or parquet, a row a picture."""

import csv
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from hundredfold.data import parquet
from hundredfold.data.listing import Entry, Listing, in_order, near_names, qualified
from hundredfold.data.shape import normal, split_named
from hundredfold.support.errors import UserError, shortened, some
from hundredfold.support.files import cache_folder
from hundredfold.support.text import unquoted

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "category", "fine_label", "target"),
    "split": ("split", "subset", "set"),
    "parent": ("superclass", "coarse_label", "parent", "supercategory"),
}
"""What each column may be called, in any case; the first two are needed."""
MISSING = {"", "nan", "NaN", "<NA>", "None", "null", "NULL"}
"""What tables write where there is no value."""
MOST_BYTES = 2**28
"""Of a table of text, at most: it is held in memory."""
MOST_NAME, MOST_PATH = 255, 4096
"""Bytes of a class's name and of a path, at most, as for folders."""

Row = Mapping[str, str]
Numbered = Sequence[tuple[int, Row]]
"""Rows, each with its line in the file."""


def list_table(path: Path, called: str = "", root: Path | None = None) -> Listing:
    """List the pictures that a table names; relative paths begin at the table's own folder.

    A parquet table may hold the pictures themselves, as Hugging Face's do. They are written once
    into the user's cache folder.

    Args:
        path: of the table.
        called: what errors call it; empty for its path.
        root: the folder that all pictures must lie in; None for anywhere.

    Raises:
        UserError: the table cannot be read, lacks a column, has an empty path or class, names
            superclasses for some pictures only, or names a file outside of `root`.
    """
    called = called or str(path)
    if path.suffix.lower() == ".parquet":
        if parquet.holds_pictures(path, COLUMNS["path"]):
            unpacked = parquet.unpack(path, cache_folder() / "unpacked", COLUMNS["path"])
            return list_table(unpacked.folder / parquet.TABLE, called, unpacked.folder)
        rows: Numbered = [(i, row) for i, row in enumerate(parquet.rows(path), 1)]
    else:
        rows = _text_rows(path, called)
    if not rows:
        raise UserError(f"{called} has no rows: wanted is a header and a row a picture.")
    columns = _columns(called, list(rows[0][1]))
    entries = [_entry(path, f"{called}, line {line}", row, columns) for line, row in rows]
    bare = [line for (line, _), entry in zip(rows, entries, strict=True) if not entry.parent]
    if 0 < len(bare) < len(entries):
        raise UserError(f"{called}, line {bare[0]}: no superclass, where other lines have one.")
    for entry in entries if root else ():
        if not entry.path.resolve().is_relative_to(root.resolve()):  # type: ignore[union-attr]
            raise UserError(f"{called} names a file outside of it, {shortened(entry.name)!r}.")
    return Listing(in_order(qualified(entries)), remarks=tuple(near_names(entries)))


def _text_rows(path: Path, called: str) -> Numbered:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise UserError(f"{called} is no regular file of at most {MOST_BYTES >> 20} MiB.")
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            kind = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
            reader = csv.DictReader(file, dialect=kind, restval="")
            for row in reader:
                if any(row.pop(None, ())):  # cells without a header
                    raise UserError(
                        f"{called}, line {reader.line_num}: more cells than the header has. Put a "
                        "cell that has a comma between quotation marks."
                    )
                rows.append((reader.line_num, {key: unquoted(row[key]) for key in row}))
    except OSError as error:
        raise UserError(f"Cannot read {called}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{called} is no table of UTF-8 text: {error}.") from error
    return rows


def _columns(called: str, names: Sequence[str]) -> dict[str, str]:
    """Return the table's own name of each column that is there, by what it holds."""
    lower = {normal(name).strip().lower(): name for name in names}
    found = {
        what: lower[alias]
        for what, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in lower
    }
    for what in ("path", "label"):
        if what not in found:
            raise UserError(
                f"{called} has no column {what} (or {', '.join(COLUMNS[what][1:])}): "
                f"its columns are {some(map(shortened, names), 10)}."
            )
    return found


def _entry(path: Path, where: str, row: Row, columns: Mapping[str, str]) -> Entry:
    """Return the picture that a row names.

    Args:
        path: of the table.
        where: what errors call the row.
        row: its cells.
        columns: their names, by what they hold.
    """
    cells = {what: row.get(column, "").strip() for what, column in columns.items()}
    values = {what: "" if cell in MISSING else cell for what, cell in cells.items()}
    for what in ("path", "label"):
        if not values[what]:
            written = f" ({cells[what]} stands for none)" if cells[what] else ""
            raise UserError(f"{where}: no {what}{written}.")
    for what, value in values.items():
        if "\0" in value:
            raise UserError(f"{where}: the {what} has a zero byte.")
        most = MOST_PATH if what == "path" else MOST_NAME
        if len(os.fsencode(value)) > most or "\n" in value:
            raise UserError(
                f"{where}: the {what} is no line of at most {most:,} bytes, {shortened(value)!r}."
            )
    named = split_named(split := values.get("split", ""))
    if split and (named is None or named[1]):
        raise UserError(
            f"{where}: the split {shortened(split)!r} is none of train, validation and test."
        )
    place = _find(path.parent, values["path"])
    return Entry(
        path=path.parent / place,
        name=PurePosixPath(place).as_posix(),
        split=named[0] if named else "",
        label=normal(values["label"]),
        parent=normal(values.get("parent", "")),
    )


def _find(folder: Path, value: str) -> str:
    """Return a path as its file is named, which a table may write in Windows' way or another form.

    Where there is no such file, as it stands in the table.
    """
    if value.isascii() and "\\" not in value:
        return value
    if _exists(folder / value):
        return value
    slashed = value.replace("\\", "/")
    found = Path("/" if slashed.startswith("/") else "")
    for part in slashed.split("/"):
        forms = (part, normal(part), unicodedata.normalize("NFD", part))
        found /= next((form for form in forms if _exists(folder / found / form)), part)
    return str(found)


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  # pathlib's raises where a name is too long
