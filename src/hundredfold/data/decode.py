"""Decode many pictures, in parallel: pixels at training size, and facts about each file."""

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

import filelock
import torch
from torch import Tensor

from hundredfold.pictures.pixels import open_file, open_picture, read_square, take_turns_by
from hundredfold.pictures.prepare import as_tensor, readable
from hundredfold.support.console import counted
from hundredfold.support.errors import UserError

AT_ONCE = 64
"""Files given to a thread or a process at a time."""
MANY = 20_000
"""Files from which on processes are worth the seconds that they take to start."""

Shape = tuple[int, ...]
Decode = Callable[[int, Sequence[str]], list["Facts"]]
"""Decodes files into rows of a store from the first one's on; returns what is known of each."""


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


def map_file(path: Path, shape: Shape, *, new: bool = False) -> Tensor:
    """Return a file's bytes as a tensor; unless it is new, writing to it changes no file."""
    flat = torch.from_file(str(path), shared=new, size=prod(shape), dtype=torch.uint8)
    return flat.view(shape)


def decode(paths: Sequence[str], store: Tensor, file: Path | None) -> tuple[Facts, ...]:
    """Decode every file into its row of the store.

    Many are decoded in processes, through the file that the store is mapped from: Pillow lets go of
    Python while it decodes, but threads still wait for each other a third of the time.

    Args:
        paths: of the files.
        store: (N, 3, S, S) uint8; black, and so it stays where a file cannot be read.
        file: what the store is mapped from; None where it is in memory.
    """
    count = os.cpu_count() or 1
    packed = hasattr(sys, "frozen")  # a program that holds its Python can start no other
    if file and len(paths) >= MANY and not packed:
        with suppress(OSError, ValueError), _processes(count, file, store.shape) as idle:
            return _gather(count, partial(_ask, idle), paths)
    return _gather(count, partial(_decode_some, store), paths)


def _gather(threads: int, work: Decode, paths: Sequence[str]) -> tuple[Facts, ...]:
    """Let threads do the work, some files at a time."""
    starts, facts = range(0, len(paths), AT_ONCE), []
    some = [paths[start : start + AT_ONCE] for start in starts]
    pool = ThreadPoolExecutor(threads)
    try:
        with warnings.catch_warnings(), counted("Reading", len(paths)) as advance:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files: the facts say enough
            for found in pool.map(work, starts, some):
                facts += found
                advance(len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(facts)


@contextmanager
def _processes(count: int, file: Path, shape: Shape) -> Iterator[SimpleQueue[Popen[str]]]:
    """Start processes that run `serve`, and end them with the block.

    Not by `multiprocessing`, whose processes run the user's script once more: one without a main
    guard would read the same pictures again, and wait for this process for ever.
    """
    program = f"from {__name__} import serve; serve()"
    command = [sys.executable or "python", "-P", "-c", program, str(file), *map(str, shape)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    idle: SimpleQueue[Popen[str]] = SimpleQueue()
    with ExitStack() as stack:
        stack.callback(_turn(file).unlink, missing_ok=True)
        for _ in range(count):
            process = Popen(
                command, stdin=PIPE, stdout=PIPE, text=True, env=environment, start_new_session=True
            )  # a session of its own, so that Ctrl-C is left to this process
            stack.enter_context(process)
            stack.callback(process.kill)
            idle.put(process)
        yield idle


def _turn(file: Path) -> Path:
    """Return the lock that is held while a large picture is decoded into a file."""
    return file.with_suffix(".turn")


def _ask(idle: SimpleQueue[Popen[str]], row: int, paths: Sequence[str]) -> list[Facts]:
    """Let a process decode files.

    Raises:
        OSError, ValueError: it has died.
    """
    process = idle.get()
    try:
        assert process.stdin and process.stdout  # noqa: S101  # both are pipes
        print(json.dumps([row, paths]), file=process.stdin, flush=True)
        return [Facts(*fact) for fact in json.loads(process.stdout.readline())]
    finally:
        idle.put(process)


def serve() -> None:
    """Decode files into a mapped one, as a process that `_processes` started."""
    warnings.simplefilter("ignore")
    file, shape = Path(sys.argv[1]), tuple(map(int, sys.argv[2:]))
    with filelock.FileLock(_turn(file)) as turn:
        take_turns_by(turn)
    store = map_file(file, shape, new=True)
    for line in sys.stdin:
        found = _decode_some(store, *json.loads(line))
        try:
            print(json.dumps([dataclasses.astuple(fact) for fact in found]), flush=True)
        except BrokenPipeError:  # who asked was killed
            os._exit(0)


def _decode_some(store: Tensor, row: int, paths: Sequence[str]) -> list[Facts]:
    """Decode files into the rows of the store from `row` on."""
    return [_decode_one(row + i, Path(path), store) for i, path in enumerate(paths)]


def _decode_one(row: int, path: Path, store: Tensor) -> Facts:
    """Decode a file into a row of the store, and return what is known of it."""
    facts = Facts()
    try:
        with readable("The file"), open_file(path) as file:
            facts = _facts(file)
            with open_picture(file) as image:
                store[row] = as_tensor(read_square(image, store.shape[-1]))
    except UserError as error:
        problem = str(error).removeprefix("The file ").removesuffix(".")
        return dataclasses.replace(facts, problem=problem)
    return facts


def _facts(file: BufferedReader) -> Facts:
    """Return the digest of a file and what its header says; of no picture the digest alone."""
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    try:
        with open_picture(file) as image:
            return Facts(
                digest,
                image.width,
                image.height,
                image.mode,
                image.format or "",
                bool(getattr(image, "is_animated", False)),
            )
    except Exception:  # decoding it says what is wrong with it
        return Facts(digest)
