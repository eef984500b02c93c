"""Read compressed files with a limit on the number of decompressed bytes."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import HeaderError, ReadError, TarFile
from typing import IO, Any, cast

from hundredfold.support.errors import UserError

OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""Function that opens a compressed file, for each signature at the start of the file."""
CHUNK = 2**20
MAX_HEADER = 2**20
"""Maximum size in bytes of a .tar member's header, with its name. Headers are kept in memory."""


@dataclass
class SizeLimit:
    """Maximum number of bytes that a file may unpack to, and the number of bytes so far."""

    source: Path
    """The file that is unpacked."""
    max_bytes: int
    bytes: int = 0

    def count(self, number: int) -> None:
        """Add a number of unpacked bytes.

        Raises:
            UserError: the total exceeds the limit.
        """
        self.bytes += number
        if self.bytes > self.max_bytes:
            raise UserError(
                f"{self.source} unpacks to more than {self.max_bytes:,} bytes, which is suspicious "
                "for a file of its size. If you trust it, unpack it yourself and pass the folder "
                "instead."
            )


class LimitedStream:
    """A stream that counts every byte it returns towards a size limit."""

    def __init__(self, stream: IO[bytes], limit: SizeLimit) -> None:
        self.stream, self.limit = stream, limit

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            UserError: more bytes were unpacked than the limit allows.
        """
        chunk = self.stream.read(size)
        self.limit.count(len(chunk))
        return chunk


class _TarStream(LimitedStream):
    """The decompressed bytes of a .tar file, with a limit on the size of each member's header."""

    max_position: float = 0
    """Number of unpacked bytes by which the current header must have ended."""

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        chunk = super().read(size)
        if self.limit.bytes > self.max_position:
            raise UserError(
                f"{self.limit.source} has a member whose header is larger than {MAX_HEADER:,} "
                "bytes, so it is not unpacked."
            )
        return chunk


class _Member(tarfile.TarInfo):
    """A member whose header must be valid: `tarfile` takes an invalid one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> "_Member":
        """Return the next member.

        Raises:
            tarfile.ReadError: its header is invalid or cut short, or the archive ends without the
                blocks that mark its end.
        """
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the regular end
                raise
            raise ReadError(str(error)) from error


def tar_members(path: Path, limit: SizeLimit) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a .tar file, compressed or not. Read each one before the next.

    Raises:
        UserError: the file unpacks to more bytes than the limit allows, a member's header is too
            large, or a member is a sparse file, whose stated size is not the size that it takes.
        Exception: whatever `tarfile` and the decompressors raise if the file is damaged or cut.
    """
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((o for magic, o in OPENERS.items() if start.startswith(magic)), None)
    with opener(path) if opener else path.open("rb") as file:
        stream = _TarStream(file, limit)
        ahead = 2 * tarfile.RECORDSIZE  # tarfile reads a record at a time
        stream.max_position = ahead + MAX_HEADER
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_Member) as tar:
            while member := tar.next():
                if member.issparse():
                    raise UserError(
                        f"{path} contains a sparse file. Unpack it yourself and pass the folder "
                        "instead."
                    )
                stream.max_position = float("inf")
                yield tar, member
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                stream.max_position = limit.bytes + member.size + ahead + MAX_HEADER
        stream.max_position = float("inf")
        while stream.read(CHUNK):  # decompressors verify a checksum at the end
            pass
