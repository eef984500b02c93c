"""Cache decoded pictures in the user's cache folder, and check the cache at each load.

A cache file holds the pixels of a list of pictures, facts about each file, a fingerprint of the
picture files, and a checksum of all of that. It is used if fingerprint and checksum match, and is
written again otherwise. Sets of pictures too large for memory stay in the file, which is mapped.
"""

import dataclasses
import errno
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import filelock
import torch
from torch import Tensor

from hundredfold.data.dataset import MAX_IN_MEMORY
from hundredfold.data.decode import FileInfo, Shape, decode, info_from, map_file
from hundredfold.data.listing import Entry
from hundredfold.pictures.pixels import Fit
from hundredfold.support.errors import UserError
from hundredfold.support.files import file_stamp, fingerprint, fingerprint_of_each, process_lock

VERSION = 3
"""Version of the file format and of how pictures are decoded. Files of another one are not used."""
MAX_LISTS = 4
"""Maximum number of cached lists of pictures per folder, size and fit. Those used last are kept."""
UNFINISHED = (".part", ".turn")
"""Suffixes of files that a killed process may leave."""
PREFIX_DIGITS = 16
"""Number of hex digits at the start of a file name that all lists of a folder, size and fit
share."""


@dataclass(frozen=True)
class DecodedPictures:
    """The pixels of a list of pictures, and facts about their files."""

    store: Tensor
    """(N, 3, S, S) uint8, one row for each file; black if the file could not be read."""
    infos: tuple[FileInfo, ...]
    """Facts about each file."""
    mapped_file: Path | None
    """The file that the store is mapped from; None if the store is in memory."""


def read_pictures(entries: Sequence[Entry], size: int, fit: Fit, folder: Path) -> DecodedPictures:
    """Decode pictures, or load them from the cache if no file has changed.

    Args:
        entries: the pictures, at least one.
        size: side length in pixels.
        fit: how a picture becomes a square.
        folder: cache folder; created if it does not exist.

    Raises:
        UserError: the pictures are too large for memory, and the folder has no room for them.
    """
    shape = (len(entries), 3, size, size)
    large = prod(shape) > MAX_IN_MEMORY
    paths = [_absolute(entry.file) for entry in entries]
    stamps = ((path, _stamp_or_nothing(path)) for path in paths)
    state = fingerprint_of_each(chain((VERSION, shape, fit), stamps))
    prefix = fingerprint(_common_folder(paths), size, fit).hex()[:PREFIX_DIGITS]
    file = folder / f"{prefix}-{fingerprint_of_each(paths).hex()[:PREFIX_DIGITS]}.pixels"
    with process_lock(folder / f"{prefix}.lock") as locked:
        if cached := _load(file, shape, state, large=large):
            return cached
        if locked:
            _make_room(folder, prefix)
        part = file.with_suffix(f".{os.getpid()}.part")
        problem = _create_file(part, prod(shape))
        if problem and large:
            raise UserError(problem)
        if problem:  # without a cache, loading only takes longer
            store = torch.zeros(shape, dtype=torch.uint8)
            return DecodedPictures(store, decode(paths, store, None, fit), None)
        try:
            _decode_to_file(paths, shape, fit, state, part)
            part.replace(file)
        except OSError as error:
            raise UserError(f"Cannot write {file}: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        cached = _load(file, shape, state, large=large)
    if cached is None:
        raise UserError(
            f"{file} does not contain what was just written to it. Check the disk for errors."
        )
    return cached


def _absolute(path: str) -> str:
    # A copy of each path of a million pictures would take 150 MB.
    return path if os.path.isabs(path) else str(Path(path).absolute())  # noqa: PTH117


def _common_folder(paths: Sequence[str]) -> str:
    """Return what `os.path.commonpath` returns, without splitting all paths at once."""

    def parts(path: str) -> list[str]:
        return path.split(os.sep)  # noqa: PTH206  # pathlib's is slower, and there may be millions

    ends = (choose(paths, key=parts) for choose in (min, max))
    return os.path.commonpath(list(ends))


def _stamp_or_nothing(path: str) -> tuple[int, ...]:
    """Return the stamp of a file, or an empty tuple if there is no such file."""
    try:
        return file_stamp(path)
    except OSError:
        return ()


def _load(file: Path, shape: Shape, state: bytes, *, large: bool) -> DecodedPictures | None:
    """Return cached pictures, or None if they are of other files, or damaged."""
    size = prod(shape)
    try:
        with file.open("rb") as stream:
            stream.seek(size)
            trailer = stream.read()
        if not trailer.startswith(state):
            return None
        mapped = map_file(file, shape)
        store = mapped if large else mapped.clone()
        if trailer[-4:] != _checksum(store, trailer[:-4]):
            return None
        with suppress(OSError):
            os.utime(file)  # marks the file as used last
        infos = tuple(map(info_from, json.loads(trailer[len(state) : -4])))
    except (OSError, RuntimeError):  # RuntimeError: the file was cut while it was being mapped
        return None
    return DecodedPictures(store, infos, file if large else None)


def _checksum(store: Tensor, trailer: bytes) -> bytes:
    return zlib.crc32(trailer, zlib.crc32(store.numpy().data)).to_bytes(4, "big")


def _decode_to_file(paths: Sequence[str], shape: Shape, fit: Fit, state: bytes, part: Path) -> None:
    """Decode pictures into a file that has the size of their pixels, then append the trailer."""
    store = map_file(part, shape, new=True)
    infos = decode(paths, store, part, fit)
    trailer = state + json.dumps([dataclasses.astuple(info) for info in infos]).encode()
    with part.open("ab") as file:
        file.write(trailer + _checksum(store, trailer))
        file.flush()
        os.fsync(file.fileno())


def _make_room(folder: Path, prefix: str) -> None:
    """Remove what killed processes left, and the lists that were used longest ago.

    The caller holds the lock of this prefix, so every other file with it can go. Unfinished files
    of other prefixes can go if nobody holds their lock.
    """
    lists = sorted(folder.glob(f"{prefix}-*.pixels"), key=lambda path: path.stat().st_mtime_ns)
    spared = {*lists[max(0, len(lists) - MAX_LISTS + 1) :], folder / f"{prefix}.lock"}
    for path in folder.iterdir():
        if path.name.startswith(prefix):
            if path not in spared:
                _remove(path)
        elif path.suffix in UNFINISHED:
            lock = filelock.FileLock(folder / f"{path.name[:PREFIX_DIGITS]}.lock", timeout=0)
            with suppress(OSError, NotImplementedError), lock:  # fails if the file is in use
                _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a file that cannot be removed only takes up room
        path.unlink()


def _create_file(part: Path, size: int) -> str:
    """Create a file of `size` bytes; return why that failed, or an empty text."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            free = shutil.disk_usage(part.parent).free
            if free >= 1.05 * size:
                _allocate(file.fileno(), size)
                return ""
        part.unlink()
    except OSError as error:
        _remove(part)
        return f"Cannot write {part.parent}: {error.strerror}."
    return (
        f"The pictures take {size / 2**30:.1f} GiB at this size, but {part.parent} has only "
        f"{free / 2**30:.1f} GiB of free space. Choose a smaller --size, empty that folder, or set "
        "the environment variable XDG_CACHE_HOME to another cache folder."
    )


def _allocate(file: int, size: int) -> None:
    """Reserve disk space for a file. A full disk would kill a process that writes to a mapped file.

    Raises:
        OSError: there is no room, or a quota is exceeded.
    """
    os.truncate(file, size)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    except OSError as error:  # some file systems cannot reserve space, and need not
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
