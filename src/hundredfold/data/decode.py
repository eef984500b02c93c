"""Decode many picture files in parallel: their pixels at training size, and facts about each."""

import dataclasses
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from math import prod
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen
from sys import intern
from typing import Any, cast

import filelock
import torch
from torch import Tensor

from hundredfold.pictures.load import as_tensor, picture_errors
from hundredfold.pictures.pixels import (
    Fit,
    open_file,
    open_picture,
    read_square,
    set_large_picture_lock,
)
from hundredfold.support.console import counted
from hundredfold.support.errors import UserError

CHUNK = 64
"""Number of files given to a thread or a process at a time."""
DIGEST_BYTES = 16
"""Number of bytes of the BLAKE2b digest of a file."""
MIN_FOR_PROCESSES = 20_000
"""Number of files above which starting processes pays off."""

Shape = tuple[int, ...]
Decoder = Callable[[int, Sequence[str]], list["FileInfo"]]
"""Function that decodes files into a store from a given row on, and returns facts about each."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Facts about a picture file."""

    digest: str = ""
    """Digest of the content in hex; empty if the file could not be read."""
    width: int = 0
    """Width in pixels as stored, before the picture is turned upright."""
    height: int = 0
    mode: str = ""
    """Pillow's name of the mode: RGB, L, P, CMYK, ..."""
    format: str = ""
    """Pillow's name of the format: JPEG, PNG, ..."""
    animated: bool = False
    problem: str = ""
    """Reason why the file cannot be used; empty if it can."""
    may_pass: bool = False
    """Whether the problem is one of the machine, such as an unreachable disk, and not of the
    file."""


def info_from(values: Sequence[Any]) -> FileInfo:
    """Return the facts that `dataclasses.astuple` has listed; equal texts share their memory."""
    info = FileInfo(*values)
    return dataclasses.replace(info, mode=intern(info.mode), format=intern(info.format))


def map_file(path: Path, shape: Shape, *, new: bool = False) -> Tensor:
    """Map a file as a uint8 tensor. Writing to the tensor changes the file only if it is new."""
    flat = torch.from_file(str(path), shared=new, size=prod(shape), dtype=torch.uint8)
    return flat.view(shape)


def shared_rows(shape: Shape) -> Tensor:
    """Return a store whose rows share their memory, for `decode` if only facts are wanted."""
    return torch.zeros((1, *shape[1:]), dtype=torch.uint8).expand(shape)


def decode(
    paths: Sequence[str], store: Tensor, file: Path | None, fit: Fit
) -> tuple[FileInfo, ...]:
    """Decode every file into its row of the store.

    Many files are decoded in processes, which write to the file that the store is mapped from.
    Pillow releases Python's lock while it decodes, but threads still wait for each other a third of
    the time.

    Args:
        paths: paths of the files.
        store: (N, 3, S, S) uint8, all zeros. The row of a file that cannot be read stays black. If
            only the facts are of interest, all rows may share their memory.
        file: the file that the store is mapped from, or a path for it if the rows share memory;
            None if the store is in memory.
        fit: how a picture becomes a square.
    """
    count = os.cpu_count() or 1
    frozen = hasattr(sys, "frozen")  # a program bundled with its Python cannot start another
    if file and len(paths) >= MIN_FOR_PROCESSES and not frozen:
        with suppress(OSError, ValueError), _processes(count, file, store, fit) as idle:
            return _decode_in_threads(count, partial(_decode_in_process, idle), paths)
    return _decode_in_threads(count, partial(_decode_files, store, fit), paths)


def _decode_in_threads(
    threads: int, decoder: Decoder, paths: Sequence[str]
) -> tuple[FileInfo, ...]:
    starts, infos = range(0, len(paths), CHUNK), []
    chunks = [paths[start : start + CHUNK] for start in starts]
    pool = ThreadPoolExecutor(threads)
    try:
        with warnings.catch_warnings(), counted("Reading", len(paths)) as advance:
            warnings.simplefilter("ignore")  # Pillow warns of odd files, which FileInfo describes
            for chunk in pool.map(decoder, starts, chunks):
                infos += chunk
                advance(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(infos)


@contextmanager
def _processes(
    count: int, file: Path, store: Tensor, fit: Fit
) -> Iterator[SimpleQueue[Popen[str]]]:
    """Start processes that run `serve`, and end them when the block ends.

    `multiprocessing` would import the user's script again in each process. A script without a main
    guard would then read the same pictures again, and wait for this process forever.
    """
    program = f"from {__name__} import serve; serve()"
    mapped = store.stride(0) > 0
    about = [str(file), str(mapped), fit, *map(str, store.shape)]
    command = [sys.executable or "python", "-P", "-c", program, *about]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    idle: SimpleQueue[Popen[str]] = SimpleQueue()
    with ExitStack() as stack:
        stack.callback(_lock_path(file).unlink, missing_ok=True)
        for _ in range(count):
            process = Popen(
                command, stdin=PIPE, stdout=PIPE, text=True, env=environment, start_new_session=True
            )  # a session of its own, so that Ctrl-C only reaches this process
            stack.enter_context(process)
            stack.callback(process.kill)
            idle.put(process)
        yield idle


def _lock_path(file: Path) -> Path:
    """Return the lock that a process holds while it decodes a large picture into a file."""
    return file.with_suffix(".turn")


def _decode_in_process(
    idle: SimpleQueue[Popen[str]], row: int, paths: Sequence[str]
) -> list[FileInfo]:
    """Let an idle process decode files.

    Raises:
        OSError, ValueError: the process has died.
    """
    process = idle.get()
    try:
        assert process.stdin and process.stdout  # noqa: S101  # both are pipes
        print(json.dumps([row, paths]), file=process.stdin, flush=True)
        return [info_from(values) for values in json.loads(process.stdout.readline())]
    finally:
        idle.put(process)


def serve() -> None:
    """Decode files into a mapped file, in a process that `_processes` started."""
    warnings.simplefilter("ignore")
    name, mapped, fit, *sides = sys.argv[1:]
    file, shape = Path(name), tuple(map(int, sides))
    with filelock.FileLock(_lock_path(file)) as lock:
        set_large_picture_lock(lock)
    store = map_file(file, shape, new=True) if mapped == "True" else shared_rows(shape)
    for line in sys.stdin:
        infos = _decode_files(store, cast(Fit, fit), *json.loads(line))
        try:
            print(json.dumps([dataclasses.astuple(info) for info in infos]), flush=True)
        except BrokenPipeError:  # the parent process was killed
            os._exit(0)


def _decode_files(store: Tensor, fit: Fit, row: int, paths: Sequence[str]) -> list[FileInfo]:
    """Decode files into the store from a given row on."""
    return [_decode_file(Path(path), store, fit, row + i) for i, path in enumerate(paths)]


def _decode_file(path: Path, store: Tensor, fit: Fit, row: int) -> FileInfo:
    """Decode a file into a row of the store, and return facts about the file."""
    info = FileInfo()
    try:
        with picture_errors("The file"), open_file(path) as file:
            info = _file_info(file)
            with open_picture(file) as image:
                store[row] = as_tensor(read_square(image, store.shape[-1], fit))
    except UserError as error:
        problem = str(error).removeprefix("The file ").removesuffix(".")
        return dataclasses.replace(info, problem=problem, may_pass=_may_pass(error.__cause__))
    return info


def _may_pass(cause: BaseException | None) -> bool:
    """Return whether an error may be gone another time, although the file does not change."""
    if isinstance(cause, FileNotFoundError):  # a file that appears is a change
        return False
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and bool(cause.errno))


def _file_info(file: BufferedReader) -> FileInfo:
    """Return a file's digest and what its header says; the digest alone if it is no picture."""
    digest = hashlib.file_digest(
        file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)
    ).hexdigest()
    try:
        with open_picture(file) as image:
            return FileInfo(
                digest,
                image.width,
                image.height,
                image.mode,
                image.format or "",
                bool(getattr(image, "is_animated", False)),
            )
    except Exception:  # decoding it will say what is wrong with it
        return FileInfo(digest)
