"""Decode many pictures once, in parallel: pixels at training size, and facts about each file.

What was read is kept in the user's cache folder, and read again only where a file has changed. Sets
too large for memory stay there, mapped from the file as they are needed.
"""

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hundredfold.console import counted
from hundredfold.data.dataset import MOST_IN_MEMORY
from hundredfold.data.listing import Entry
from hundredfold.errors import UserError
from hundredfold.files import alone, write_atomic
from hundredfold.pictures import formats, load_picture

VERSION = 1
"""Of the kept form and of how pictures are decoded; what another one left is not used."""
AT_ONCE = 64
"""Files given to a thread or a process at a time."""
MANY = 20_000
"""Files from which on processes are worth the seconds that they take to start."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of a picture's file."""

    digest: str = ""
    """Of its content, hex; empty where it could not be read."""
    width: int = 0
    """Pixels, as stored: before it is turned upright."""
    height: int = 0
    mode: str = ""
    """As Pillow calls it: RGB, L, P, CMYK, ..."""
    format: str = ""
    """As Pillow calls it: JPEG, PNG, ..."""
    animated: bool = False
    problem: str = ""
    """Why it cannot be used; empty where it can."""


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
    stamp = _digest(VERSION, shape, paths, [_stamp(path) for path in paths])
    pixels = folder / f"{_digest(os.path.commonpath(paths), size)[:16]}.pixels"
    about = pixels.with_suffix(".json")
    with alone(pixels.with_suffix(".lock")):
        facts = _recall(about, stamp)
        if facts is None or not pixels.exists():
            no_room = _no_room(folder, prod(shape))
            if no_room and large:
                raise UserError(no_room)
            if no_room:  # what cannot be kept only costs time
                store = torch.zeros(shape, dtype=torch.uint8)
                return Reading(store, _decode(paths, store, None), None)
            about.unlink(missing_ok=True)  # what it says is not of the pixels that come now
            facts = _decode_and_keep(paths, shape, pixels)
            kept = {"stamp": stamp, "facts": [dataclasses.astuple(fact) for fact in facts]}
            write_atomic(about, json.dumps(kept).encode())
        store = _map(pixels, shape)
    return Reading(store if large else store.clone(), facts, pixels if large else None)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _stamp(path: str) -> tuple[int, int]:
    """Return what changes when a file does; zeros where it is not there."""
    try:
        stat = os.stat(path)  # noqa: PTH116  # of a hundred thousand, pathlib's takes seconds
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _recall(about: Path, stamp: str) -> tuple[Facts, ...] | None:
    """Return the facts that were kept, or None where they are of other files."""
    try:
        kept = json.loads(about.read_text())
        return tuple(Facts(*fact) for fact in kept["facts"]) if kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(path: Path, shape: Shape, *, new: bool = False) -> Tensor:
    """Return a file's bytes as a tensor; unless it is new, writing to it changes no file."""
    flat = torch.from_file(str(path), shared=new, size=prod(shape), dtype=torch.uint8)
    return flat.view(shape)


def _no_room(folder: Path, size: int) -> str:
    """Return why so many bytes cannot be kept in a folder, which is made; empty where they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"Cannot write {folder}: {error.strerror}."
    if free < 1.05 * size:
        return (
            f"The pictures take {size / 2**30:.1f} GiB at this size, and {folder} has "
            f"{free / 2**30:.1f} GiB of room: take a smaller --size, or name another cache folder "
            "in the environment variable XDG_CACHE_HOME."
        )
    return ""


def _decode_and_keep(paths: Sequence[str], shape: Shape, pixels: Path) -> tuple[Facts, ...]:
    """Decode files into a file of pixels, which gets its name when it is whole and on the disk."""
    part = pixels.with_suffix(f".{os.getpid()}.part")
    try:
        facts = _decode(paths, _map(part, shape, new=True), part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(pixels)
    finally:
        part.unlink(missing_ok=True)
    return facts


def _decode(paths: Sequence[str], store: Tensor, file: Path | None) -> tuple[Facts, ...]:
    """Decode every file into its row of the store.

    Many are decoded in processes, through the file that the store is mapped from: Pillow lets go of
    Python while it decodes, but threads still wait for each other a third of the time.
    """
    count = os.cpu_count() or 1
    if file and len(paths) >= MANY:
        context = multiprocessing.get_context("spawn")
        processes = ProcessPoolExecutor(count, context, initializer=_ignore_interrupt)
        work = partial(_decode_mapped, file=file, shape=tuple(store.shape))
        with suppress(BrokenProcessPool):  # of a script that does not guard its main part, say
            return _gather(processes, work, paths)
    return _gather(ThreadPoolExecutor(count), partial(_decode_some, store=store), paths)


def _gather(
    pool: Executor, work: Callable[[int, Sequence[str]], list[Facts]], paths: Sequence[str]
) -> tuple[Facts, ...]:
    """Let a pool decode all files, some at a time."""
    starts, facts = range(0, len(paths), AT_ONCE), []
    some = [paths[start : start + AT_ONCE] for start in starts]
    try:
        with warnings.catch_warnings(), counted("Reading", len(paths)) as advance:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files: the facts say enough
            for found in pool.map(work, starts, some):
                facts += found
                advance(len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(facts)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the process that waits for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _decode_mapped(row: int, paths: Sequence[str], file: Path, shape: Shape) -> list[Facts]:
    """Decode files into rows of a mapped file, in a process of its own."""
    warnings.simplefilter("ignore")
    return _decode_some(row, paths, _map(file, shape, new=True))


def _decode_some(row: int, paths: Sequence[str], store: Tensor) -> list[Facts]:
    """Decode files into the rows of the store from `row` on."""
    return [_decode_one(row + i, Path(path), store) for i, path in enumerate(paths)]


def _decode_one(row: int, path: Path, store: Tensor) -> Facts:
    """Decode a file into a row of the store, and return what is known of it."""
    facts = Facts()
    try:
        content = path.read_bytes()
        facts = Facts(hashlib.blake2b(content, digest_size=16).hexdigest())
        facts = inspect(content, facts.digest)
        store[row] = load_picture(content, store.shape[-1])
    except UserError as error:
        problem = str(error).removeprefix("The file ").removesuffix(".")
        return dataclasses.replace(facts, problem=problem)
    except OSError as error:
        return dataclasses.replace(facts, problem=f"cannot be read: {error.strerror}")
    return facts


def inspect(content: bytes, digest: str) -> Facts:
    """Return what a picture's header says; nothing where it is no picture."""
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            return Facts(
                digest,
                image.width,
                image.height,
                image.mode,
                image.format or "",
                bool(getattr(image, "is_animated", False)),
            )
    except Exception:  # `load_picture` says what is wrong with it
        return Facts(digest)
