"""Pictures that were decoded once are kept in the user's cache folder, and checked at each load.

A file holds the pixels of a list of pictures, what is known of each, a stamp of the files that they
come from, and a checksum of all that. It is taken where both hold, and made again where not. Sets
too large for memory stay there, mapped from the file as they are needed.
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
from math import prod
from pathlib import Path

import filelock
import torch
from torch import Tensor

from hundredfold.data.dataset import MOST_IN_MEMORY
from hundredfold.data.decode import Facts, Shape, decode, map_file
from hundredfold.data.listing import Entry
from hundredfold.support.errors import UserError
from hundredfold.support.files import alone, fingerprint, stamp

VERSION = 2
"""Of the kept form and of how pictures are decoded; what another one left is not used."""
KEPT = 4
"""Lists of pictures of one folder, at most, that are kept at a size: those used last."""
UNFINISHED = (".part", ".turn")
"""What a killed process may leave."""
PLACE = 16
"""Hex digits that a name begins with, the same for all lists of one folder at a size."""


@dataclass(frozen=True)
class Reading:
    """Pictures that were read."""

    store: Tensor
    """(N, 3, S, S) uint8, a row for each file; black where it could not be read."""
    facts: tuple[Facts, ...]
    """Of each file."""
    mapped: Path | None
    """The file that the store is mapped from; None where it is in memory."""


def read_pictures(entries: Sequence[Entry], size: int, folder: Path) -> Reading:
    """Read pictures, or take what was kept of them where none has changed.

    Args:
        entries: which; one at least.
        size: side in pixels.
        folder: where what was read is kept; made where it is not there.

    Raises:
        UserError: they are too many for memory, and the folder has no room for them.
    """
    shape = (len(entries), 3, size, size)
    large = prod(shape) > MOST_IN_MEMORY
    paths = [str(entry.path.absolute()) for entry in entries]
    state = fingerprint(VERSION, shape, paths, [_stamp(path) for path in paths])
    place = fingerprint(os.path.commonpath(paths), size).hex()[:PLACE]
    kept = folder / f"{place}-{fingerprint(paths).hex()[:PLACE]}.pixels"
    with alone(folder / f"{place}.lock") as locked:
        if reading := _recall(kept, shape, state, large=large):
            return reading
        if locked:
            _tidy(folder, place)
        part = kept.with_suffix(f".{os.getpid()}.part")
        no_room = _no_room(part, prod(shape))
        if no_room and large:
            raise UserError(no_room)
        if no_room:  # what cannot be kept only costs time
            store = torch.zeros(shape, dtype=torch.uint8)
            return Reading(store, decode(paths, store, None), None)
        try:
            _decode_and_keep(paths, shape, state, part)
            part.replace(kept)
        except OSError as error:
            raise UserError(f"Cannot write {kept}: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        reading = _recall(kept, shape, state, large=large)
    if reading is None:
        raise UserError(f"{kept} does not hold what was just written to it: is the disk sound?")
    return reading


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes when a file does; nothing where it is not there."""
    try:
        return stamp(path)
    except OSError:
        return ()


def _recall(kept: Path, shape: Shape, state: bytes, *, large: bool) -> Reading | None:
    """Return the pictures that were kept, or None where they are of other files, or damaged."""
    size = prod(shape)
    try:
        with kept.open("rb") as file:
            file.seek(size)
            about = file.read()
        if not about.startswith(state):
            return None
        mapped = map_file(kept, shape)
        store = mapped if large else mapped.clone()
        if about[-4:] != _checksum(store, about[:-4]):
            return None
        with suppress(OSError):
            os.utime(kept)  # used last now
        facts = tuple(Facts(*fact) for fact in json.loads(about[len(state) : -4]))
    except (OSError, RuntimeError):  # the latter of a file that is cut while it is mapped
        return None
    return Reading(store, facts, kept if large else None)


def _checksum(store: Tensor, about: bytes) -> bytes:
    return zlib.crc32(about, zlib.crc32(store.numpy().data)).to_bytes(4, "big")


def _decode_and_keep(paths: Sequence[str], shape: Shape, state: bytes, part: Path) -> None:
    """Decode files into a file that has their pixels' size, and complete and flush it."""
    store = map_file(part, shape, new=True)
    facts = decode(paths, store, part)
    about = state + json.dumps([dataclasses.astuple(fact) for fact in facts]).encode()
    with part.open("ab") as file:
        file.write(about + _checksum(store, about))
        file.flush()
        os.fsync(file.fileno())


def _tidy(folder: Path, place: str) -> None:
    """Make way for a list: remove what killed processes left, and the lists used longest ago.

    The lock of the place is held, so that everything else that begins with it is litter. What is
    unfinished of other places is litter where nobody holds their locks.
    """
    lists = sorted(folder.glob(f"{place}-*.pixels"), key=lambda path: path.stat().st_mtime_ns)
    spared = {*lists[max(0, len(lists) - KEPT + 1) :], folder / f"{place}.lock"}
    for path in folder.iterdir():
        if path.name.startswith(place):
            if path not in spared:
                _remove(path)
        elif path.suffix in UNFINISHED:
            lock = filelock.FileLock(folder / f"{path.name[:PLACE]}.lock", timeout=0)
            with suppress(OSError, NotImplementedError), lock:  # held: it is being written
                _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # where it cannot be removed, it only takes room
        path.unlink()


def _no_room(part: Path, size: int) -> str:
    """Return why a file of so many bytes cannot be made, or nothing where it is made now."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            free = shutil.disk_usage(part.parent).free
            if free >= 1.05 * size:
                _reserve(file.fileno(), size)
                return ""
        part.unlink()
    except OSError as error:
        _remove(part)
        return f"Cannot write {part.parent}: {error.strerror}."
    return (
        f"The pictures take {size / 2**30:.1f} GiB at this size, and {part.parent} has "
        f"{free / 2**30:.1f} GiB of room: take a smaller --size, empty that folder, or name "
        "another cache folder in the environment variable XDG_CACHE_HOME."
    )


def _reserve(file: int, size: int) -> None:
    """Give a file its size and its room: where it is mapped, a full disk would end the process.

    Raises:
        OSError: there is no room, or the user may not have so much.
    """
    os.truncate(file, size)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    except OSError as error:  # some file systems cannot, and need not
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
