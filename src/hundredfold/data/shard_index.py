"""The index of a folder of shards that `hundredfold pack` wrote: the checksum of each shard."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from hundredfold.support.errors import DamagedFileError, UserError

INDEX = "shards.jsonl"
"""Name of the index: one line about the pictures, then one line for each finished shard."""


class Shard(NamedTuple):
    """A finished shard."""

    name: str
    pictures: int
    bytes: int
    sha256: str


def read_index(folder: Path) -> tuple[str, dict[str, Shard]]:
    """Return what a folder's shards were packed from, and the finished shards by name.

    Both are empty if there is no index. A last line that was cut short does not count.

    Raises:
        UserError: the index cannot be read or is damaged.
    """
    path = folder / INDEX
    if not path.exists():
        return "", {}
    try:
        first, *lines = path.read_text().split("\n")[:-1] or ["{}"]
        shards = [Shard(**json.loads(line)) for line in lines]
        return str(json.loads(first).get("packed", "")), {shard.name: shard for shard in shards}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read or is damaged. Delete the folder and pack the pictures again."
        ) from error


def verify(path: Path) -> None:
    """Compare a shard with the checksum in the index of its folder, if there is one.

    Raises:
        DamagedFileError: the shard has other content.
        UserError: as `read_index` does.
    """
    known = read_index(path.parent)[1].get(path.name)
    if known and checksum(path) != known.sha256:
        raise DamagedFileError(f"{path} has another checksum than in {INDEX}. Pack it again.")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
