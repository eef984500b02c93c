"""The index of a folder of shards that `hundredfold pack` wrote: the checksum of each shard."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hundredfold.support.errors import DamagedFileError, UserError
from hundredfold.support.files import file_stamp

INDEX = "shards.jsonl"
"""Name of the index: one line about the pictures, then one line for each finished shard."""


class Index(NamedTuple):
    """What `read_index` found."""

    packed: str = ""
    """Fingerprint of the pictures and of how they are divided; empty if there is no index."""
    names: tuple[str, ...] = ()
    """Names of all shards, finished or not."""
    finished: Mapping[str, "Shard"] = {}


class Shard(NamedTuple):
    """A finished shard."""

    name: str
    pictures: int
    bytes: int
    sha256: str


def read_index(folder: Path) -> Index:
    """Return the index of a folder; an empty one if there is none.

    A last line that was cut short does not count.

    Raises:
        UserError: the index cannot be read or is damaged.
    """
    path = folder / INDEX
    return _parse(path, file_stamp(path)) if path.exists() else Index()


@lru_cache(maxsize=1)  # each shard asks for the same index
def _parse(path: Path, _: tuple[int, ...]) -> Index:
    """Return an index, which has not changed if its stamp has not."""
    try:
        first, *lines = path.read_text().split("\n")[:-1] or ["{}"]
        about, shards = json.loads(first), [Shard(**json.loads(line)) for line in lines]
        finished = {shard.name: shard for shard in shards}
        return Index(str(about.get("packed", "")), tuple(map(str, about["names"])), finished)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read or is damaged. Delete the folder and pack the pictures again."
        ) from error


def verify(path: Path) -> None:
    """Compare a shard with the checksum in the index of its folder, if there is one.

    Raises:
        DamagedFileError: the shard has other content.
        UserError: as `read_index` does.
    """
    known = read_index(path.parent).finished.get(path.name)
    if known and checksum(path) != known.sha256:
        raise DamagedFileError(
            f"{path} is damaged or was changed: its checksum differs from the one in {INDEX}. Pack "
            "the pictures again."
        )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
