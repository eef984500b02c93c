"""Read parquet tables of paths, or of the pictures themselves as Hugging Face stores them."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from hundredfold.data.decompress import LimitedStream
from hundredfold.data.unpack import (
    UNPACKED_TABLE,
    Destination,
    UnpackedFolder,
    unpack_once,
    write_member,
)
from hundredfold.support.errors import DamagedFileError, UserError, extra, first_few, first_line
from hundredfold.support.text import plural

MAX_ROWS = 10**7
"""Maximum number of rows. A file of a few kilobytes can claim more."""
MAX_CELL = 10_000
"""Maximum number of characters of another cell that are kept; a caption may be a page."""
BATCH_ROWS = 100
"""Number of rows that are read at a time. Each may contain a large picture."""


def rows(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a table that contains paths, as text. A missing value is an empty text.

    Raises:
        DamagedFileError: the table cannot be read.
    """
    for row in records(path):
        yield {name: _text(value) for name, value in row.items()}


def holds_pictures(path: Path, columns: Sequence[str]) -> bool:
    """Return whether one of these columns contains pictures rather than paths.

    Raises:
        DamagedFileError: the table cannot be read.
    """
    return _picture_column(_open(path).schema_arrow, columns) != ""


def unpack_parquet(path: Path, folder: Path, columns: Sequence[str]) -> UnpackedFolder:
    """Write the pictures of a table to files, and a text table with their paths.

    Rows without a picture are left out, and the result says so.

    Args:
        path: path of the table.
        folder: folder for unpacked files.
        columns: possible names of the column with the pictures; the first is written.

    Raises:
        DamagedFileError: the table cannot be read.
        UserError: the pictures take too many bytes, or the disk is full.
    """

    def unpack(path: Path, destination: Destination) -> None:
        column = _picture_column(_open(path).schema_arrow, columns)
        without: list[str] = []
        with (destination.folder / UNPACKED_TABLE).open("w", encoding="utf-8", newline="") as file:
            for number, row in enumerate(records(path), 1):
                value = row.pop(column)
                content = picture_bytes(value)
                if not content:
                    without.append(str(number))
                    continue
                name = value.get("path") if isinstance(value, dict) else None
                name = f"{number:07d}{_suffix(name or '')}"
                stream = LimitedStream(BytesIO(content), destination.limit)
                write_member(destination.folder / name, stream)
                # Another column with names of files must not be taken for the path.
                cells = {
                    header: _text(cell)[:MAX_CELL]
                    for header, cell in row.items()
                    if header.strip().lower() not in columns
                }
                writer = csv.writer(file)
                if not file.tell():
                    writer.writerow([columns[0], *cells])
                writer.writerow([name, *cells.values()])
        if without:
            rows = f"{plural(len(without), 'row')} without a picture: {first_few(without)}"
            destination.left_out.append(f"{path} has {rows}")

    return unpack_once(path, folder, unpack)


def _open(path: Path) -> Any:
    with extra("parquet", f"To read {path} you need"):
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  # an extra
    try:
        table = parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise DamagedFileError(f"Cannot read {path}: {first_line(error)}.") from error
    names = table.schema_arrow.names
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DamagedFileError(f"{path} has several columns called {first_few(sorted(repeated))}.")
    if table.metadata.num_rows > MAX_ROWS:
        raise UserError(f"{path} has more than {MAX_ROWS:,} rows. Split it into smaller tables.")
    return table


def picture_bytes(value: Any) -> bytes:
    """Return the content of a picture's file from a cell; empty if there is none."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else b""


def count_rows(path: Path) -> int:
    """Return the number of rows of a table.

    Raises:
        DamagedFileError: the table cannot be read.
    """
    return int(_open(path).metadata.num_rows)


def class_names(path: Path) -> dict[str, dict[int, str]]:
    """Return the class names of each column that has names for its numbers.

    Raises:
        DamagedFileError: the table cannot be read.
    """
    return _class_names(_open(path).schema_arrow.metadata or {})


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows, in which class names replace class numbers if the table has names.

    Raises:
        DamagedFileError: the table cannot be read.
    """
    table = _open(path)
    from pyarrow import ArrowException  # noqa: PLC0415  # an extra, installed by now

    names = _class_names(table.schema_arrow.metadata or {})
    try:
        for batch in table.iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                yield row | {
                    column: known.get(row[column])  # -1 stands for no class
                    for column, known in names.items()
                    if column in row
                }
    except (OSError, ArrowException) as error:
        raise DamagedFileError(f"Cannot read {path}: {first_line(error)}.") from error


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[int, str]]:
    """Return the class names of each column, which Hugging Face's `datasets` stores as metadata."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: {i: str(name) for i, name in enumerate(feature["names"])}
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _picture_column(schema: Any, columns: Sequence[str]) -> str:
    """Return the first of these columns that contains pictures as bytes; an empty text if none."""
    from pyarrow import types  # noqa: PLC0415  # an extra, installed by now

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
    """Return the suffix of a picture's name, or an empty text if it has unusual characters."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,9}", suffix) else ""


def _text(value: Any) -> str:
    """Return a cell as text; empty if there is no value, or it has no form as text."""
    missing = value is None or value != value  # noqa: PLR0124  # NaN
    return "" if missing or isinstance(value, dict | list | bytes) else str(value)
