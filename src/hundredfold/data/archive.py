"""Pictures from a .zip or .tar, unpacked once into the user's cache folder.

Only regular files are written, and copies of them where a .tar has links to them; other links and
devices never.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, cast

from hundredfold.data.counted import Counted, tar_members
from hundredfold.data.unpacking import Target, Unpacked, unpack_once, write
from hundredfold.support.errors import UserError, shortened

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_DIRECTORY = 2**28
"""Bytes, at most, of a .zip's list of members: it is held in memory, ten times as large."""


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(ARCHIVES)


def unpack(path: Path, folder: Path) -> Unpacked:
    """Unpack an archive below `folder`, unless it is there already.

    Raises:
        UserError: it is damaged or encrypted, a path in it leads outside, it unpacks to too much,
            or the disk is full.
    """
    return unpack_once(path, folder, _fill_from_zip if _is_zip(path) else _fill_from_tar)


def _is_zip(path: Path) -> bool:
    return path.name.lower().endswith(".zip")


class _Zipped(io.FileIO):
    """A .zip whose list of members is read only where memory suffices for it."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes: `zipfile` asks for the whole list at once."""
        if size and size > MOST_DIRECTORY:
            raise UserError(
                f"{self.name} has a list of members of more than {MOST_DIRECTORY:,} bytes: "
                "unpack it yourself and name the folder."
            )
        return super().read(-1 if size is None else size) or b""


def _fill_from_zip(path: Path, target: Target) -> None:
    with _Zipped(path) as file, zipfile.ZipFile(file) as archive:
        rename = _names(path, archive.infolist(), target)
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise UserError(f"{path} is encrypted: unpack it yourself, name the folder.")
            name, kind = rename(info), info.external_attr >> 28  # of Unix: 4 a folder, 8 a file
            if kind not in (0, 4, 8):  # 0 is not said
                _pass_over(name, target)
            elif place := target.place(name, folder=info.is_dir()):
                with archive.open(info) as content:
                    write(place, Counted(content, target.budget))


def _names(
    path: Path, members: Iterable[zipfile.ZipInfo], target: Target
) -> Callable[[zipfile.ZipInfo], str]:
    """Return what tells a member's name, guessed where a .zip does not say how it is written.

    Such names are UTF-8 where they can be, as macOS writes them; else they are Chinese where they
    can be; else they stay as `zipfile` reads them. What is not sure is said.
    """
    unsaid = [m for m in members if not m.flag_bits & 0x800 and not m.filename.isascii()]
    if not unsaid:
        return lambda info: info.filename
    raw = [info.filename.encode("cp437") for info in unsaid]
    encoding = next(each for each in ("utf-8", "gb2312", "cp437") if _can_be(raw, each))
    if encoding != "utf-8":
        guess = "are taken for Chinese" if encoding == "gb2312" else "may be read wrongly"
        example = repr(shortened(raw[0].decode(encoding)))
        target.remarks.append(
            f"{path} does not say in which encoding its names are. They {guess}, such as "
            f"{example}. If that is wrong, unpack it yourself and name the folder."
        )
    known = {m.filename: name.decode(encoding) for m, name in zip(unsaid, raw, strict=True)}
    return lambda info: known.get(info.filename, info.filename)


def _can_be(names: Iterable[bytes], encoding: str) -> bool:
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _fill_from_tar(path: Path, target: Target) -> None:
    for tar, member in tar_members(path, target.budget):
        _write_member(tar, member, target)


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Target) -> None:
    """Write a member of a .tar that is a regular file, or a link to one that was written."""
    if member.isreg() or member.isdir():
        if place := target.place(member.name, folder=member.isdir()):
            write(place, cast("IO[bytes]", tar.extractfile(member)))
    elif member.islnk() and (linked := _linked(member, target)):
        if place := target.place(member.name):
            with linked.open("rb") as content:
                write(place, Counted(content, target.budget))
    else:
        _pass_over(member.name, target)


def _pass_over(name: str, target: Target) -> None:
    """Take note of a link or a device, which is not written, and make the folder that it is in."""
    if target.place(name):
        target.pass_over(name, "a link or a device")


def _linked(member: tarfile.TarInfo, target: Target) -> Path | None:
    """Return the other file that a hard link stands for; None where it was not written."""
    if member.linkname.startswith("/"):
        return None
    path = target.path(member.linkname)
    return path if path.is_file() and path != target.path(member.name) else None
