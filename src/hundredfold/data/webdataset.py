"""Unpack shards of WebDataset: .tar archives in which the files of one picture are neighbours.

The name of a file up to its first dot is the key of a sample, and the rest says what the file is:
0001.jpg is the picture of sample 0001, 0001.cls its class, and 0001.json an object with its label.
"""

import csv
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, cast

from hundredfold.data.decompress import SizeLimit, tar_members
from hundredfold.data.shard_index import verify
from hundredfold.data.table import COLUMNS
from hundredfold.data.unpack import (
    UNPACKED_TABLE,
    Destination,
    UnpackedFolder,
    unpack_once,
    write_member,
)
from hundredfold.pictures.load import is_picture
from hundredfold.pictures.walk import as_text, is_hidden
from hundredfold.support.errors import UserError, first_few
from hundredfold.support.text import plural

TARS = (".tar", ".tar.gz", ".tgz")
KINDS = ("cls", "json")
"""What follows the key in the name of a file with a label."""
MAX_LABEL = 2**20
"""Maximum size in bytes of a file with a label."""
PEEKED = 20
"""Number of members that are looked at to recognise a shard."""
MAX_PEEKED = 2**30
"""Maximum number of bytes that those members may unpack to."""
DAMAGED = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""Exceptions that a damaged archive raises; ValueError if a number in a header is none."""

Sample = dict[str, str]
"""The cells of a picture by the column of `table.COLUMNS`."""


def is_webdataset(path: Path) -> bool:
    """Return whether a picture and a label with the same key are among an archive's first files."""
    if not path.name.lower().endswith(TARS):
        return False
    pictures, labels = set(), set()
    try:
        for _, member in islice(tar_members(path, SizeLimit(path, MAX_PEEKED)), PEEKED):
            key, kind = _parse(member.name)
            if kind in KINDS:
                labels.add(key)
            elif _is_the_picture(kind):
                pictures.add(key)
    except (UserError, OSError, *DAMAGED):
        pass  # what came before the damage decides
    return bool(pictures & labels)


def unpack_webdataset(path: Path, folder: Path, class_names: Sequence[str] = ()) -> UnpackedFolder:
    """Write the pictures of a shard to files, and a text table with their labels.

    If the shard is cut short or damaged, the pictures before that are used, unless it was packed by
    `hundredfold pack`: then its checksum shows that it is not what was packed.

    Args:
        path: path of the shard.
        folder: folder for unpacked files.
        class_names: names of the classes 0, 1, ...; empty if the numbers are their names.

    Raises:
        DamagedFileError: the shard has not its checksum.
        UserError: the shard cannot be read, has a path that leads outside, or unpacks to too many
            bytes, or the disk is full.
    """

    def unpack(path: Path, destination: Destination) -> None:
        verify(path)
        count, key, without, unwritable = 0, "", list[str](), list[str]()
        with (destination.folder / UNPACKED_TABLE).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, tuple(COLUMNS))
            table.writeheader()
            try:
                for key, sample in _samples(path, destination, class_names):
                    if "path" not in sample:
                        without += [key] if "label" in sample else []
                    elif not _is_text(sample):
                        unwritable.append(as_text(key))
                    else:
                        table.writerow(sample)
                        count += 1
                whole = True
            except OSError as error:
                if error.errno is not None:  # of the disk; decompressors raise others
                    raise
                whole = False
            except DAMAGED:
                whole = False
        if not whole:
            if without[-1:] == [key]:  # its picture may come after the cut
                without.pop()
            destination.left_out.append(
                f"The pictures after the first {count:,} of {path}, which is cut short or damaged, "
                "cannot be read"
            )
        if without:
            samples = plural(len(without), "sample")
            destination.left_out.append(
                f"{path} has {samples} without a picture of a known kind: {first_few(without)}"
            )
        if unwritable:
            samples = plural(len(unwritable), "sample")
            destination.left_out.append(
                f"{path} has {samples} with a name or a label that is not valid Unicode: "
                f"{first_few(unwritable)}"
            )

    return unpack_once(path, folder, unpack, tuple(class_names))


def _is_text(sample: Sample) -> bool:
    """Return whether the cells of a sample can be written to a table."""
    try:
        "".join(sample.values()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _samples(
    path: Path, destination: Destination, class_names: Sequence[str]
) -> Iterator[tuple[str, Sample]]:
    """Write the picture of each sample to a file, and yield its key and its cells."""
    last, sample = "", Sample()
    try:
        for tar, member in tar_members(path, destination.limit):
            if not member.isreg() or is_hidden(PurePosixPath(member.name).name):
                continue  # macOS writes ._0001.jpg beside 0001.jpg
            key, kind = _parse(member.name)
            if key != last:
                yield last, sample
                last, sample = key, Sample()
            content = cast("IO[bytes]", tar.extractfile(member))
            if kind in KINDS:
                sample = _read_label(kind, content.read(MAX_LABEL), class_names) | sample
            elif "path" not in sample and _is_the_picture(kind):
                sample |= _write_picture(member.name, content, destination)
    except (OSError, *DAMAGED):
        if sample.keys() >= {"path", "label"}:  # complete before the damage
            yield last, sample
        raise
    yield last, sample


def _write_picture(name: str, content: IO[bytes], destination: Destination) -> Sample:
    """Write a picture to a file of its own, and return the cell with its path; none if hidden."""
    target = destination.prepare(name)
    if target is None:
        return {}
    while target.exists():  # another sample has the same key
        target = target.with_stem(f"{target.stem}_")
    write_member(target, content)
    return {"path": target.relative_to(destination.folder).as_posix()}


def _is_the_picture(kind: str) -> bool:
    """Return whether a file is what a sample shows: `jpg` or `image.jpg`, but not `mask.png`."""
    suffix = kind.removeprefix("image.").removeprefix("img.")
    return "." not in suffix and is_picture(Path(f"x.{suffix}"))


def _parse(name: str) -> tuple[str, str]:
    """Return the key of the sample that a file belongs to, and what the file is."""
    folder, slash, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _read_label(kind: str, content: bytes, class_names: Sequence[str]) -> Sample:
    """Return the cells that a file with a label gives; none if it is not what its name says."""
    try:
        if kind == "cls":
            text = content.decode().strip()
            return {
                "label": _label(int(text) if text.lstrip("-").isdecimal() else text, class_names)
            }
        values = json.loads(content)
    except (UnicodeDecodeError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        values = {"label": values}
    cells = {
        column: values[alias]
        for column, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if column not in ("path", "split") and isinstance(values.get(alias), int | str)
    }
    sample = {column: str(value) for column, value in cells.items()}
    return sample | {"label": _label(cells["label"], class_names)} if "label" in cells else sample


def _label(value: int | str, class_names: Sequence[str]) -> str:
    """Return the name of a class, given by its number or its name; empty if there is none.

    A negative number stands for no class.
    """
    if isinstance(value, str):
        return value if value in class_names or not class_names else ""
    if not class_names:
        return str(value) if value >= 0 else ""
    return class_names[value] if 0 <= value < len(class_names) else ""
