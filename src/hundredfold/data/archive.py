"""Unpack .zip and .tar archives of pictures once, into the user's cache folder.

Only regular files are written. A hard link in a .tar becomes a copy of the file that it points to.
Other links and devices are never written.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, cast

from hundredfold.data.decompress import LimitedStream, tar_members
from hundredfold.data.unpack import Destination, UnpackedFolder, unpack_once, write_member
from hundredfold.support.errors import UserError, shortened

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_DIRECTORY = 2**28
"""Maximum size in bytes of a .zip's list of members. Python needs ten times as much memory."""


def is_archive(path: Path) -> bool:
    """Return whether the file name is that of an archive."""
    return path.name.lower().endswith(ARCHIVES)


def unpack_archive(path: Path, folder: Path) -> UnpackedFolder:
    """Unpack an archive below `folder`, unless that was done before.

    Raises:
        UserError: the archive is damaged or encrypted, contains a path that leads outside, or
            unpacks to too many bytes, or the disk is full.
    """
    is_zip = path.name.lower().endswith(".zip")
    return unpack_once(path, folder, _unpack_zip if is_zip else _unpack_tar)


class _ZipFile(io.FileIO):
    """A .zip file that refuses to read a list of members that is too large for memory."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. `zipfile` reads the whole list of members in one call."""
        if size and size > MAX_DIRECTORY:
            raise UserError(
                f"The list of members in {self.name} is larger than {MAX_DIRECTORY:,} bytes. "
                "Unpack the archive yourself and pass the folder instead."
            )
        return super().read(-1 if size is None else size) or b""


def _unpack_zip(path: Path, destination: Destination) -> None:
    with _ZipFile(path) as file, zipfile.ZipFile(file) as archive:
        decoded_name = _name_decoder(path, archive.infolist(), destination)
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise UserError(
                    f"{path} is encrypted. Unpack it yourself and pass the folder instead."
                )
            name, kind = decoded_name(info), info.external_attr >> 28  # Unix: 4 folder, 8 file
            if kind not in (0, 4, 8):  # 0: not stated
                _skip_special(name, destination)
            elif target := destination.prepare(name, folder=_is_folder(info)):
                with archive.open(info) as content:
                    write_member(target, LimitedStream(content, destination.limit))


def _is_folder(info: zipfile.ZipInfo) -> bool:
    """Return whether a member is a folder, also if a tool for Windows wrote a backslash."""
    return info.is_dir() or info.filename.endswith("\\") or bool(info.external_attr & 0x10)


def _name_decoder(
    path: Path, members: Iterable[zipfile.ZipInfo], destination: Destination
) -> Callable[[zipfile.ZipInfo], str]:
    """Return a function that gives a member's name, in a guessed encoding if none is stated.

    The guess is UTF-8 if all such names are valid UTF-8 (macOS writes them so), else GB2312 if
    that is valid, else the name as `zipfile` reads it. An uncertain guess is added to the remarks.
    """
    unstated = [
        m
        for m in members
        if not m.flag_bits & 0x800
        and not m.filename.isascii()
        and m.filename == m.orig_filename  # Python 3.12 and newer reads the field of UTF-8 names
    ]
    if not unstated:
        return lambda info: info.filename
    raw = [info.filename.encode("cp437") for info in unstated]
    encoding = next(name for name in ("utf-8", "gb2312", "cp437") if _is_valid(raw, name))
    if encoding != "utf-8":
        guess = "were read as Chinese" if encoding == "gb2312" else "may have been misread"
        example = repr(shortened(raw[0].decode(encoding)))
        destination.remarks.append(
            f"{path} does not state the encoding of its file names. They {guess}, for example "
            f"{example}. If that is wrong, unpack the archive yourself and pass the folder instead."
        )
    names = {m.filename: name.decode(encoding) for m, name in zip(unstated, raw, strict=True)}
    return lambda info: names.get(info.filename, info.filename)


def _is_valid(names: Iterable[bytes], encoding: str) -> bool:
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _unpack_tar(path: Path, destination: Destination) -> None:
    for tar, member in tar_members(path, destination.limit):
        if member.isreg() or member.isdir():
            if target := destination.prepare(member.name, folder=member.isdir()):
                write_member(target, cast("IO[bytes]", tar.extractfile(member)))
        elif member.islnk() and (linked := _linked_file(member, destination)):
            if target := destination.prepare(member.name):
                with linked.open("rb") as content:
                    write_member(target, LimitedStream(content, destination.limit))
        else:
            _skip_special(member.name, destination)


def _skip_special(name: str, destination: Destination) -> None:
    """Record a link or device as skipped, and create the folder that contains it."""
    if destination.prepare(name):
        destination.skip(name, "a link or a device")


def _linked_file(member: tarfile.TarInfo, destination: Destination) -> Path | None:
    """Return the unpacked file that a hard link points to, or None if there is no such file."""
    if member.linkname.startswith("/"):
        return None
    path = destination.path_of(member.linkname)
    return path if path.is_file() and path != destination.path_of(member.name) else None
