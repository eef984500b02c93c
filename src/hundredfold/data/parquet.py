"""Parquet tables, which may hold the pictures themselves, as Hugging Face's do."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from hundredfold.data.counted import Counted
from hundredfold.data.unpacking import Target, Unpacked, unpack_once, write
from hundredfold.support.errors import UserError, extra, first_line

TABLE = "table.csv"
"""What takes a parquet table's place where its pictures were unpacked."""
MOST_ROWS = 10**7
"""Rows, at most: a file of some kilobytes may claim more."""
AT_ONCE = 100
"""Rows that are read at a time: each may hold a large picture."""


def rows(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a table that names pictures; no value is empty text.

    Raises:
        UserError: it cannot be read.
    """
    for row in _rows(path):
        yield {name: _text(value) for name, value in row.items()}


def holds_pictures(path: Path, columns: Sequence[str]) -> bool:
    """Return whether one of these columns holds pictures rather than paths.

    Raises:
        UserError: the table cannot be read.
    """
    return _picture_column(_open(path).schema_arrow, columns) != ""


def unpack(path: Path, folder: Path, columns: Sequence[str]) -> Unpacked:
    """Write the pictures of a table, and a table of text in which their paths take their place.

    Args:
        path: of the table.
        folder: where unpacked files are kept.
        columns: what the pictures' column may be called.

    Raises:
        UserError: it cannot be read, a row has no picture, it unpacks to too much, or the disk is
            full.
    """

    def fill(path: Path, target: Target) -> None:
        column = _picture_column(_open(path).schema_arrow, columns)
        with (target.folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            for number, row in enumerate(_rows(path), 1):
                value = row.pop(column)
                content = value.get("bytes") if isinstance(value, dict) else value
                if not content:
                    raise UserError(f"{path}, row {number}: no picture.")
                name = value.get("path") if isinstance(value, dict) else None
                name = f"{number:07d}{_suffix(name or '')}"
                write(target.folder / name, Counted(BytesIO(content), target.budget))
                cells = {each: _text(cell) for each, cell in row.items()}
                writer = csv.writer(file)
                if number == 1:
                    writer.writerow([column, *cells])
                writer.writerow([name, *cells.values()])

    return unpack_once(path, folder, fill)


def _open(path: Path) -> Any:
    with extra("parquet", f"To read {path} you need"):
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  # an extra
    try:
        table = parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise UserError(f"Cannot read {path}: {first_line(error)}.") from error
    if table.metadata.num_rows > MOST_ROWS:
        raise UserError(f"{path} has more than {MOST_ROWS:,} rows.")
    return table


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows, with names in place of the numbers of classes where the table has names."""
    table = _open(path)
    from pyarrow import ArrowException  # noqa: PLC0415  # an extra, which is there

    names = _class_names(table.schema_arrow.metadata or {})
    try:
        for batch in table.iter_batches(AT_ONCE):
            for row in batch.to_pylist():
                yield row | {
                    column: known.get(row[column])  # -1 is that of none
                    for column, known in names.items()
                    if column in row
                }
    except (OSError, ArrowException) as error:
        raise UserError(f"Cannot read {path}: {first_line(error)}.") from error


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[int, str]]:
    """Return the names of the classes in each column, as Hugging Face's `datasets` notes them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: {i: str(name) for i, name in enumerate(feature["names"])}
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _picture_column(schema: Any, columns: Sequence[str]) -> str:
    """Return the first of these columns that holds bytes, alone or with a path; empty for none."""
    from pyarrow import types  # noqa: PLC0415  # an extra, which is there

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    for name in schema.names:
        if name.strip().lower() in columns:
            kind = schema.field(name).type
            if is_bytes(kind):
                return str(name)
            if types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind):
                return str(name)
    return ""


def _suffix(name: str) -> str:
    """Return what a picture's name ends with, where it is harmless."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,9}", suffix) else ""


def _text(value: Any) -> str:
    """Return a cell as text; empty where there is no value, or none that text could be."""
    missing = value is None or value != value  # noqa: PLR0124  # not a number
    return "" if missing or isinstance(value, dict | list | bytes) else str(value)
