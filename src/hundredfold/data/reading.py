"""Decode many pictures once, in parallel: pixels at training size, and facts about each file.

What was read is kept in the user's cache folder, and read again only where a file has changed. Sets
too large for memory stay there, mapped from the file as they are needed.
"""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from hundredfold.files import write_atomic
from hundredfold.pictures import formats, load_picture

VERSION = 1
"""Of the kept form and of how pictures are decoded; what another one left is not used."""
AT_ONCE = 4096
"""Files given to the threads at a time: a million at once would fill the memory with promises."""


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
    stamp = _digest(VERSION, shape, paths, [_stamp(entry.path) for entry in entries])
    pixels = folder / f"{_digest(os.path.commonpath(paths), size)[:16]}.pixels"
    about = pixels.with_suffix(".json")
    facts = _recall(about, stamp)
    if facts is not None and pixels.exists():
        store = _map(pixels, shape)
        return Reading(store if large else store.clone(), facts, pixels if large else None)
    if large:
        _make_room(folder, prod(shape))
        part = pixels.with_suffix(f".{os.getpid()}.part")
        try:
            store = _map(part, shape, new=True)
            facts = _decode(entries, store)
            part.replace(pixels)
        finally:
            part.unlink(missing_ok=True)
    else:
        store = torch.zeros(shape, dtype=torch.uint8)
        facts = _decode(entries, store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not large:
            write_atomic(pixels, store.numpy().data)
        kept = {"stamp": stamp, "facts": [dataclasses.astuple(fact) for fact in facts]}
        write_atomic(about, json.dumps(kept).encode())
    except OSError:
        pass  # what cannot be kept only costs time
    return Reading(store, facts, pixels if large else None)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file does; zeros where it is not there."""
    try:
        stat = path.stat()
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


def _map(path: Path, shape: tuple[int, ...], *, new: bool = False) -> Tensor:
    """Return a file's bytes as a tensor; of one that is not new, writing changes no file."""
    flat = torch.from_file(str(path), shared=new, size=prod(shape), dtype=torch.uint8)
    return flat.view(shape)


def _make_room(folder: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror}.") from error
    if free < 1.05 * size:
        raise UserError(
            f"The pictures take {size / 2**30:.1f} GiB at this size, and {folder} has "
            f"{free / 2**30:.1f} GiB of room: take a smaller --size, or name another cache folder "
            "in the environment variable XDG_CACHE_HOME."
        )


def _decode(entries: Sequence[Entry], store: Tensor) -> tuple[Facts, ...]:
    """Decode every file into its row of the store; in threads, for Pillow lets go of Python."""
    rows = partial(_decode_one, store=store)
    facts: list[Facts] = []
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        with warnings.catch_warnings(), counted("Reading", len(entries)) as advance:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files: the facts say enough
            for some in _blocks(len(entries)):
                for fact in pool.map(rows, some, [entries[i].path for i in some]):
                    facts.append(fact)
                    advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(facts)


def _blocks(count: int) -> Iterator[range]:
    for start in range(0, count, AT_ONCE):
        yield range(start, min(start + AT_ONCE, count))


def _decode_one(row: int, path: Path, store: Tensor) -> Facts:
    """Decode a file into a row of the store, and return what is known of it."""
    facts = Facts()
    try:
        content = path.read_bytes()
        facts = Facts(hashlib.blake2b(content, digest_size=16).hexdigest())
        facts = inspect(content, facts.digest)
        store[row] = load_picture(content, store.shape[-1])
    except UserError as error:
        problem = str(error).removeprefix("The picture ").removesuffix(".")
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
