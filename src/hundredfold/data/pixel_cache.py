"""Cache decoded pictures in the user's cache folder, and check the cache at each load.

A cache file holds the pixels of a list of pictures, facts about each file, a fingerprint of the
picture files, and a checksum of all of that. It is used if fingerprint and checksum match, and is
written again otherwise. Sets of pictures too large for memory stay in the file, which is mapped.
If there is no room for the pixels, only the facts are kept, and pictures are decoded when needed.
"""

import dataclasses
import errno
import os
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import filelock
import torch
from rich.filesize import decimal
from torch import Tensor

from hundredfold.data.dataset import MAX_IN_MEMORY
from hundredfold.data.decode import FileInfo, Shape, decode, info_from, map_file, shared_rows
from hundredfold.data.encoded import EncodedPictures
from hundredfold.data.listing import Entry
from hundredfold.data.passes import RESULTS, remembered
from hundredfold.data.sealed import seal, unseal
from hundredfold.pictures.pixels import Fit
from hundredfold.support.errors import UserError
from hundredfold.support.files import (
    fingerprint,
    fingerprint_of_each,
    process_lock,
    stamp_or_nothing,
)
from hundredfold.support.units import parse_size

VERSION = 4
"""Version of the file format and of how pictures are decoded. Files of another one are not used."""
SHARE = 0.9
"""Share of the free disk space that decoded pictures may take, unless another limit is given."""
MAX_LISTS = 4
"""Maximum number of cached lists of pictures per folder, size and fit. Those used last are kept."""
UNFINISHED = (".part", ".turn")
"""Suffixes of files that a killed process may leave."""
PIXELS, FACTS = ".pixels", ".facts"
"""Suffixes of a file with pixels and facts, and of one with facts alone."""
IN_MEMORY = "in memory"
PREFIX_DIGITS = 16
"""Number of hex digits at the start of a file name that all lists of a folder, size and fit
share."""


@dataclass(frozen=True)
class DecodedPictures:
    """The pixels of a list of pictures, and facts about their files."""

    store: Tensor | EncodedPictures
    """(N, 3, S, S) uint8, one row for each file; black, or not usable, if the file could not be
    read."""
    infos: tuple[FileInfo, ...]
    """Facts about each file."""
    where: str
    """Where the pixels are, for people."""


def read_pictures(
    entries: Sequence[Entry], size: int, fit: Fit, folder: Path, most: str = ""
) -> DecodedPictures:
    """Decode pictures, or load them from the cache if no file has changed.

    Args:
        entries: the pictures, at least one.
        size: side length in pixels.
        fit: how a picture becomes a square.
        folder: cache folder; created if it does not exist.
        most: most disk space for the pixels, as `Config.cache`.

    Raises:
        UserError: `most` is not a size, a cache file cannot be written, or the disk is faulty.
    """
    if most and parse_size(most) < 0:
        raise UserError(f"--cache is {most!r}, but must be a size such as 500MB or 20GB.")
    shape = (len(entries), 3, size, size)
    large = prod(shape) > MAX_IN_MEMORY
    paths = [_absolute(entry.file) for entry in entries]
    stamps = ((path, stamp_or_nothing(path)) for path in paths)
    state = fingerprint_of_each(chain((VERSION, shape, fit), stamps))
    prefix = fingerprint(_common_folder(paths), size, fit).hex()[:PREFIX_DIGITS]
    file = folder / f"{prefix}-{fingerprint_of_each(paths).hex()[:PREFIX_DIGITS]}{PIXELS}"
    with process_lock(folder / f"{prefix}.lock") as locked:
        if cached := _load(file, shape, state, large=large):
            return _retried(cached, paths, fit)
        if locked:
            _make_room(folder, prefix)
        part = file.with_suffix(f".{os.getpid()}.part")
        problem = _create_file(part, prod(shape), most)
        if problem and (large or most):
            infos = _facts(file.with_suffix(FACTS), paths, shape, fit, state)
            digests = [info.digest for info in infos]
            unusable = [i for i, info in enumerate(infos) if info.problem]
            remember = partial(remembered, file.with_suffix(RESULTS), fingerprint(state, unusable))
            store = EncodedPictures(paths, digests, size, fit, remember)
            return DecodedPictures(store, infos, problem)
        if problem:  # without a cache, loading only takes longer
            pixels = torch.zeros(shape, dtype=torch.uint8)
            return DecodedPictures(pixels, decode(paths, pixels, None, fit), IN_MEMORY)
        try:
            pixels = map_file(part, shape, new=True)
            infos = decode(paths, pixels, part, fit)
            _append(part, seal(_values(infos), state, _checksum(pixels)))
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


def _facts(
    file: Path, paths: Sequence[str], shape: Shape, fit: Fit, state: bytes
) -> tuple[FileInfo, ...]:
    """Return facts about picture files: those of an earlier call, or by decoding each file once."""
    with suppress(OSError):
        if infos := _infos(unseal(file.read_bytes(), state)):
            with suppress(OSError):
                os.utime(file)  # marks the file as used last
            cached = DecodedPictures(shared_rows(shape), infos, "")
            return _retried(cached, paths, fit).infos
    part = file.with_suffix(f".{os.getpid()}.part")
    infos = decode(paths, shared_rows(shape), part, fit)
    with suppress(OSError):  # they can be found out again
        part.unlink(missing_ok=True)
        _append(part, seal(_values(infos), state))
        part.replace(file)
    return infos


def _retried(cached: DecodedPictures, paths: Sequence[str], fit: Fit) -> DecodedPictures:
    """Decode pictures again whose problem when they were cached may be gone by now."""
    rows = [i for i, info in enumerate(cached.infos) if info.may_pass]
    if not rows:
        return cached
    assert isinstance(cached.store, Tensor)  # noqa: S101
    pixels = torch.zeros((len(rows), *cached.store.shape[1:]), dtype=torch.uint8)
    infos = list(cached.infos)
    for row, info in zip(rows, decode([paths[i] for i in rows], pixels, None, fit), strict=True):
        infos[row] = info
    if cached.store.stride(0):  # rows that share memory are not of interest
        cached.store[rows] = pixels
    return replace(cached, infos=tuple(infos))


def _absolute(path: str) -> str:
    # A copy of each path of a million pictures would take 150 MB.
    return path if os.path.isabs(path) else str(Path(path).absolute())  # noqa: PTH117


def _common_folder(paths: Sequence[str]) -> str:
    """Return what `os.path.commonpath` returns, without splitting all paths at once."""

    def parts(path: str) -> list[str]:
        return path.split(os.sep)  # noqa: PTH206  # pathlib's is slower, and there may be millions

    ends = (choose(paths, key=parts) for choose in (min, max))
    return os.path.commonpath(list(ends))


def _load(file: Path, shape: Shape, state: bytes, *, large: bool) -> DecodedPictures | None:
    """Return cached pictures, or None if they are of other files, or damaged."""
    try:
        with file.open("rb") as stream:
            stream.seek(prod(shape))
            trailer = stream.read()
        if not trailer.startswith(state):
            return None
        mapped = map_file(file, shape)
        store = mapped if large else mapped.clone()
        infos = _infos(unseal(trailer, state, _checksum(store)))
        with suppress(OSError):
            os.utime(file)  # marks the file as used last
    except (OSError, RuntimeError):  # RuntimeError: the file was cut while it was being mapped
        return None
    where = f"mapped from {file}" if large else IN_MEMORY
    return DecodedPictures(store, infos, where) if infos else None


def _values(infos: Sequence[FileInfo]) -> list[tuple[Any, ...]]:
    return [dataclasses.astuple(info) for info in infos]


def _infos(values: Sequence[Any] | None) -> tuple[FileInfo, ...]:
    """Return facts from what `_values` returned; none without it."""
    return tuple(map(info_from, values or ()))


def _append(part: Path, trailer: bytes) -> None:
    with part.open("ab") as file:
        file.write(trailer)
        file.flush()
        os.fsync(file.fileno())


def _checksum(pixels: Tensor) -> int:
    return zlib.crc32(pixels.numpy().data)


def _make_room(folder: Path, prefix: str) -> None:
    """Remove what killed processes left, and the lists that were used longest ago.

    The caller holds the lock of this prefix, so every other file with it can go. Unfinished files
    of other prefixes can go if nobody holds their lock.
    """
    lists = [path for path in folder.glob(f"{prefix}-*") if path.suffix in (PIXELS, FACTS)]
    lists.sort(key=lambda path: path.stat().st_mtime_ns)
    spared = {*lists[max(0, len(lists) - MAX_LISTS + 1) :], folder / f"{prefix}.lock"}
    spared |= {path.with_suffix(RESULTS) for path in spared}
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


def _create_file(part: Path, size: int, most: str) -> str:
    """Create a file of `size` bytes; return why not, or an empty text.

    Args:
        part: path of the file.
        size: size of the file in bytes.
        most: most disk space that it may take, as `Config.cache`.
    """
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            limit = parse_size(most) if most else SHARE * shutil.disk_usage(part.parent).free
            if size <= limit:
                _allocate(file.fileno(), size)
                return ""
        part.unlink()
    except OSError as error:
        _remove(part)
        return f"decoded whenever they are needed, as {part.parent} has no room: {error.strerror}"
    return (
        f"decoded whenever they are needed, as they would take {decimal(size)} and the cache may "
        f"take {decimal(int(limit))}"
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
