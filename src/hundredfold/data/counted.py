"""Compressed files of which no more is read than may be: all that is unpacked counts."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from hundredfold.support.errors import UserError

OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""What reads a compressed file, by how it begins."""
MOST_HEADER = 2**20
"""Bytes, at most, that a .tar may spend on a member's name and the like: these are held in
memory."""


@dataclass
class Budget:
    """How many bytes may be unpacked, and how many were."""

    source: Path
    """What is unpacked."""
    most: int
    bytes: int = 0

    def spend(self, number: int) -> None:
        """Take note of bytes that were unpacked.

        Raises:
            UserError: these are too many.
        """
        self.bytes += number
        if self.bytes > self.most:
            raise UserError(
                f"{self.source} unpacks to more than {self.most:,} bytes, which is too much for "
                "its size: if you trust it, unpack it yourself and name the folder."
            )


class Counted:
    """A stream whose bytes count as unpacked when they are read."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self.stream, self.budget = stream, budget

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            UserError: more were unpacked than may be.
        """
        chunk = self.stream.read(size)
        self.budget.spend(len(chunk))
        return chunk


class _Tarred(Counted):
    """The unpacked bytes of a .tar, of which only so many may be a member's header."""

    header_end: float = 0
    """How many bytes may be unpacked before the header has to end."""

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        chunk = super().read(size)
        if self.budget.bytes > self.header_end:
            raise UserError(
                f"{self.budget.source} has a member whose header is larger than {MOST_HEADER:,} "
                "bytes: it is not unpacked."
            )
        return chunk


def tar_members(path: Path, budget: Budget) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a .tar, compressed or not, each to be read before the next.

    Raises:
        UserError: it unpacks to more than may be, or a member's header is too large, or a file is
            sparse: its size is not what it takes.
        Exception: whatever `tarfile` and the like raise where it is damaged.
    """
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((o for magic, o in OPENERS.items() if start.startswith(magic)), None)
    with opener(path) if opener else path.open("rb") as file:
        stream = _Tarred(file, budget)
        ahead = 2 * tarfile.RECORDSIZE  # tarfile reads a record at a time
        stream.header_end = ahead + MOST_HEADER
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
            while member := tar.next():
                if member.issparse():
                    raise UserError(
                        f"{path} has a sparse file: unpack it yourself and name the folder."
                    )
                stream.header_end = float("inf")
                yield tar, member
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all
                stream.header_end = budget.bytes + member.size + ahead + MOST_HEADER
