"""List the pictures of a CSV, TSV or parquet table, which has one row for each picture."""

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePath, PurePosixPath
from sys import intern

from hundredfold.data import parquet
from hundredfold.data.layout import parse_split_name, to_nfc
from hundredfold.data.listing import (
    Entry,
    Listing,
    describe_similar_classes,
    qualify_shared_names,
    sort_entries,
)
from hundredfold.data.unpack import UNPACKED_TABLE, unpacked_folder
from hundredfold.support.errors import UserError, first_few, shortened
from hundredfold.support.text import unescape_formula

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "category", "fine_label", "target"),
    "split": ("split", "subset", "set"),
    "parent": ("superclass", "coarse_label", "parent", "supercategory"),
    "group": (
        *("group", "subject", "patient", "person", "group_id", "subject_id", "patient_id"),
        *("person_id", "source_id"),
    ),
}
"""Possible names of each column, in upper or lower case. Path and label are required."""
MISSING = {"", "nan", "NaN", "<NA>", "None", "null", "NULL"}
"""Texts that stand for a missing value."""
MAX_BYTES = 2**28
"""Maximum size of a text table, which is held in memory."""
MAX_NAME, MAX_PATH = 255, 4096
"""Maximum number of bytes in a class name and in a path. File systems have the same limits."""

Row = Mapping[str, str]
Numbered = Sequence[tuple[int, Row]]
"""Rows with their line numbers."""


def list_table(path: Path, source: str = "", root: Path | None = None) -> Listing:
    """List the pictures of a table, whose relative paths start at the folder of the table.

    A parquet table may contain the pictures themselves, as Hugging Face's do. They are written once
    to the user's cache folder.

    Args:
        path: path of the table.
        source: name of the table in errors; empty for its path.
        root: folder that all pictures must be in; None to allow any folder.

    Raises:
        UserError: as `read_entries` does.
    """
    source = source or str(path)
    if path.suffix.lower() == ".parquet" and parquet.holds_pictures(path, COLUMNS["path"]):
        unpacked = parquet.unpack_parquet(path, unpacked_folder(), COLUMNS["path"])
        listing = list_table(unpacked.folder / UNPACKED_TABLE, source, unpacked.folder)
        return replace(listing, left_out=unpacked.left_out)
    entries, _ = read_entries(path, source, root)
    remarks = tuple(describe_similar_classes(entries))
    return Listing(sort_entries(qualify_shared_names(entries)), remarks=remarks)


def lists_pictures(path: Path) -> bool:
    """Return whether a table has a column of paths and one of labels, as far as can be told."""
    if path.suffix.lower() == ".parquet":
        return True
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, "excel-tab" if path.suffix == ".tsv" else "excel"), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return True
    known = {to_nfc(name).strip().lower() for name in names}
    return all(known.intersection(COLUMNS[kind]) for kind in ("path", "label"))


def read_entries(
    path: Path, source: str, root: Path | None = None, *, lenient: bool = False
) -> tuple[list[Entry], list[str]]:
    """Return the pictures of a table of paths in its order, and the paths without a class.

    Args:
        path: path of the table.
        source: name of the table in errors.
        root: folder that all pictures must be in; None to allow any folder.
        lenient: leave out rows without a class, rather than raise an error.

    Raises:
        UserError: the table cannot be read, lacks a column, has an empty path or class, names
            superclasses for only some pictures, or names a file outside of `root`.
    """
    rows: Numbered
    if path.suffix.lower() == ".parquet":
        rows = [(i, row) for i, row in enumerate(parquet.rows(path), 1)]
    else:
        rows = _text_rows(path, source)
    if not rows and not lenient:
        raise UserError(f"{source} has no rows. A header and one row for each picture are needed.")
    columns = _columns(source, list(rows[0][1])) if rows else {}

    def is_used(row: Row) -> bool:
        return not lenient or _is_label(row[columns["label"]].strip())

    unlabelled = [row[columns["path"]] for _, row in rows if not is_used(row)]
    rows = [(line, row) for line, row in rows if is_used(row)]
    entries = [_entry(path, f"{source}, line {line}", row, columns) for line, row in rows]
    missing = [line for (line, _), entry in zip(rows, entries, strict=True) if not entry.parent]
    if 0 < len(missing) < len(entries):
        raise UserError(
            f"{source}, line {missing[0]}: there is no superclass, although other lines have one."
        )
    for entry in entries:
        if root and not _is_inside(entry, root):
            raise UserError(f"{source} names a file outside of it, {shortened(entry.name)!r}.")
    return entries, unlabelled


def is_kept(name: str) -> bool:
    """Return whether the name of a class is read from a table as it was written."""
    return name.splitlines() == [name.strip()] and name not in MISSING


def _is_label(cell: str) -> bool:
    """Return whether a cell can be the name of a class."""
    return cell not in MISSING and "\0" not in cell and _is_short_line(cell, MAX_NAME)


def _is_short_line(value: str, limit: int) -> bool:
    return len(os.fsencode(value)) <= limit and "\n" not in value


def _is_inside(entry: Entry, root: Path) -> bool:
    """Return whether a picture is in a folder of unpacked files, which has no links."""
    parts = PurePath(entry.file).parts
    if ".." in parts:
        return entry.path.resolve().is_relative_to(root.resolve())
    return parts[: len(root.parts)] == root.parts


def _text_rows(path: Path, source: str) -> Numbered:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise UserError(f"{source} is not a regular file of at most {MAX_BYTES >> 20} MiB.")
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            kind = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
            reader = csv.DictReader(file, dialect=kind, restval="")
            _refuse_repeated(source, reader.fieldnames or ())
            for row in reader:
                if any(row.pop(None, ())):  # cells without a header
                    raise UserError(
                        f"{source}, line {reader.line_num}: there are more cells than in the "
                        "header. Put a cell that contains a comma in quotation marks."
                    )
                rows.append((reader.line_num, {key: unescape_formula(row[key]) for key in row}))
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source} is not a table in UTF-8 text: {error}.") from error
    return rows


def _columns(source: str, names: Sequence[str]) -> dict[str, str]:
    """Return the table's own name of each known column."""
    _refuse_repeated(source, names)
    lower = {to_nfc(name).strip().lower(): name for name in names}
    columns = {
        kind: lower[alias]
        for kind, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in lower
    }
    for kind in ("path", "label"):
        if kind not in columns:
            raise UserError(
                f"{source} has no column {kind} (or {', '.join(COLUMNS[kind][1:])}). Its columns "
                f"are {first_few(map(shortened, names), 10)}."
            )
    return columns


def _refuse_repeated(source: str, names: Sequence[str]) -> None:
    """Raise a UserError if two columns have the same known name, as only one could be read."""
    counts = Counter(to_nfc(name).strip().lower() for name in names)
    for alias in chain.from_iterable(COLUMNS.values()):
        if counts[alias] > 1:
            raise UserError(
                f"{source} has {counts[alias]} columns named {alias}. Rename all but one."
            )


def _entry(path: Path, where: str, row: Row, columns: Mapping[str, str]) -> Entry:
    """Return the picture of a row.

    Args:
        path: path of the table.
        where: name of the row in errors.
        row: cells of the row.
        columns: the table's own name of each known column.
    """
    cells = {kind: row.get(column, "").strip() for kind, column in columns.items()}
    values = {kind: "" if cell in MISSING else cell for kind, cell in cells.items()}
    for kind in ("path", "label"):
        if not values[kind]:
            written = f" ({cells[kind]} counts as missing)" if cells[kind] else ""
            raise UserError(f"{where}: there is no {kind}{written}.")
    for kind, value in values.items():
        if "\0" in value:
            raise UserError(f"{where}: the {kind} contains a zero byte.")
        limit = MAX_PATH if kind == "path" else MAX_NAME
        if not _is_short_line(value, limit):
            raise UserError(
                f"{where}: the {kind} must be a single line of at most {limit:,} bytes, not "
                f"{shortened(value)!r}."
            )
    parsed = parse_split_name(split := values.get("split", ""))
    if split and (parsed is None or parsed[1]):
        raise UserError(
            f"{where}: the split must be train, validation or test, not {shortened(split)!r}."
        )
    file = _existing_path(path.parent, values["path"])
    return Entry(
        file=str(path.parent / file),
        name=PurePosixPath(file).as_posix(),
        split=parsed[0] if parsed else "",
        label=intern(to_nfc(values["label"])),
        parent=intern(to_nfc(values.get("parent", ""))),
        group=intern(to_nfc(values.get("group", ""))),
    )


def _existing_path(folder: Path, value: str) -> str:
    """Return the path of an existing file, which a table may write with backslashes or in NFD.

    If there is no such file, the parts of the path that do not exist stay as the table has them.
    """
    if value.isascii() and "\\" not in value:
        return value
    if _exists(folder / value):
        return value
    slashed = value.replace("\\", "/")
    found = Path("/" if slashed.startswith("/") else "")
    for part in slashed.split("/"):
        forms = (part, to_nfc(part), unicodedata.normalize("NFD", part))
        found /= next((form for form in forms if _exists(folder / found / form)), part)
    return str(found)


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  # pathlib's raises if a name is too long
