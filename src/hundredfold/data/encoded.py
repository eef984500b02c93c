"""Pictures that stay in their files and are decoded each time they are needed."""

import gc
import hashlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hundredfold.data.decode import DIGEST_BYTES
from hundredfold.pictures.load import picture_errors
from hundredfold.pictures.pixels import (
    Fit,
    SquarePixels,
    open_file,
    open_picture,
    read_square,
    set_large_picture_lock,
)
from hundredfold.support.errors import UserError

CHUNK = 64
"""Number of pictures given to a process at a time."""
CHUNKS_AHEAD = 4
"""Number of chunks that each process decodes before they are needed."""
PARENT_CHECK = 1.0
"""Seconds between two checks of a worker whether its parent process is alive."""
WORKER_KILLED = (
    "A process that decodes pictures was killed, perhaps because there is too little memory."
)

Remember = Callable[[str, Callable[[], Any]], Any]


@dataclass
class ReadingSeconds:
    """Time that pictures took, in seconds."""

    read: float = 0.0
    """To read their files, of all processes together."""
    decode: float = 0.0
    """To decode them, of all processes together."""
    waited: float = 0.0
    """For which this process waited for the others."""


class EncodedPictures:
    """The store of a `Split` that is too large for the cache: it decodes what is asked for.

    It takes an index as a tensor (N, 3, S, S) uint8 does, and returns the same pixels. They depend
    only on the index, so the number of processes that decode changes nothing. On Linux, these are
    the workers of torch's DataLoader, one for each thread of torch; elsewhere, this process
    decodes (docs/machines.md compares the libraries).
    """

    device = torch.device("cpu")

    def __init__(
        self,
        paths: Sequence[str],
        digests: Sequence[str],
        size: int,
        fit: Fit,
        remember: Remember = lambda _, compute: compute(),
    ) -> None:
        """Describe pictures without reading them.

        Args:
            paths: path of each picture.
            digests: digest of the content of each file, in hex; empty if it cannot be used.
            size: side S in pixels.
            fit: how a picture becomes a square.
            remember: returns a result of a pass over the pictures that was computed earlier under a
                name, or computes it.
        """
        self.shape = torch.Size((len(paths), 3, size, size))
        self.seconds = ReadingSeconds()
        # A process that uses a Python object writes to it, which would copy the memory of a
        # million paths into each worker.
        names = [os.fsencode(path) for path in paths]
        self._paths = b"".join(names)
        self._ends = np.array([0, *accumulate(map(len, names))])
        unusable = bytes(DIGEST_BYTES)
        self._digests = b"".join(bytes.fromhex(digest) or unusable for digest in digests)
        self._fit = fit
        self.remember = remember

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the pictures at `index`, a slice or (M,) int64: (M, 3, S, S) uint8.

        Raises:
            UserError: as `batches` does.
        """
        rows = torch.arange(len(self))[index] if isinstance(index, slice) else index
        if len(rows) <= CHUNK:  # starting processes would take longer
            return self._join([self.__getitems__(rows.tolist())])
        (pixels,) = self.batches([rows])
        return pixels

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the pictures of each batch, (B, 3, S, S) uint8, which are decoded ahead.

        Args:
            chosen: (B,) int64 for each batch, rows of the pictures.

        Raises:
            UserError: a file cannot be read any more or has changed, or a process was killed.
        """
        counts = deque[int]()  # of the chunks of each batch

        def chunks() -> Iterator[list[int]]:
            for rows in chosen:
                parts = rows.split(CHUNK)
                counts.append(len(parts))
                yield from (part.tolist() for part in parts)

        decoded = iter(self._loader(chunks()))
        try:
            while found := self._next(decoded, counts):
                yield self._join(found)
        finally:
            # This ends the workers, also if an error keeps this frame. The next workers would
            # otherwise inherit what belongs to these.
            del decoded

    def _next(
        self, decoded: "Iterator[Chunk | UserError]", counts: deque[int]
    ) -> "list[Chunk | UserError]":
        """Return the chunks of the next batch; none after the last batch."""
        started = time.perf_counter()
        try:
            found = list(islice(decoded, 1))
            found += islice(decoded, counts.popleft() - 1) if found else []
        except RuntimeError as error:
            if not is_killed_worker(error):
                raise
            raise UserError(WORKER_KILLED) from error
        self.seconds.waited += time.perf_counter() - started
        return found

    def _loader(self, chunks: Iterator[list[int]]) -> Iterable["Chunk | UserError"]:
        """Return the decoded chunks, in order."""
        # A daemonic process may start no other.
        if sys.platform != "linux" or multiprocessing.current_process().daemon:
            return map(self.__getitems__, chunks)
        workers = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
        context = multiprocessing.get_context("fork")  # others would run the user's script again
        return DataLoader(
            cast(Any, self),
            batch_sampler=cast(Any, chunks),  # it has no length
            num_workers=workers,
            prefetch_factor=CHUNKS_AHEAD,
            collate_fn=_unchanged,
            multiprocessing_context=context,
            worker_init_fn=partial(_start_worker, context.Lock()),
            generator=torch.Generator(),  # training draws from the global one
        )

    def _join(self, chunks: "Sequence[Chunk | UserError]") -> Tensor:
        """Return the pixels of chunks, or raise the error of the first that has one."""
        pixels = []
        for chunk in chunks:
            if isinstance(chunk, UserError):
                raise chunk
            pixels.append(chunk.pixels)
            self.seconds.read += chunk.read
            self.seconds.decode += chunk.decode
        return torch.from_numpy(np.concatenate(pixels))

    def __getitems__(self, rows: Sequence[int]) -> "Chunk | UserError":
        """Decode the pictures of some rows, in a worker; return an error, as it must be pickled."""
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        try:
            seconds = [self._decode(row, place) for row, place in zip(rows, pixels, strict=True)]
        except UserError as error:
            return error
        read, decode = map(sum, zip(*seconds, strict=True)) if seconds else (0.0, 0.0)
        return Chunk(pixels, read, decode)

    def _decode(self, row: int, place: SquarePixels) -> tuple[float, float]:
        """Decode a picture into its place; return the seconds to read and to decode it."""
        path = Path(os.fsdecode(self._paths[self._ends[row] : self._ends[row + 1]]))
        started = time.perf_counter()
        with picture_errors(str(path)):
            with open_file(path) as file:
                content = file.read()
            read = time.perf_counter()
            digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
            if digest != self._digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]:
                raise UserError(
                    f"{path} has changed since the pictures were loaded. Start again to use it as "
                    "it is now."
                )
            with open_picture(io.BytesIO(content)) as image:
                place[:] = read_square(image, self.shape[-1], self._fit).transpose(2, 0, 1)
        return read - started, time.perf_counter() - read


@dataclass(frozen=True)
class Chunk:
    """Decoded pictures."""

    pixels: SquarePixels
    """(M, 3, S, S). An array and not a tensor, which would need room in /dev/shm."""
    read: float
    """Seconds to read their files."""
    decode: float
    """Seconds to decode them."""


def _unchanged(chunk: Any) -> Any:
    return chunk


def _start_worker(lock: AbstractContextManager[object], _: int) -> None:
    """Prepare a process that decodes; this process alone handles Ctrl-C, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # Pillow warns of odd files
    set_large_picture_lock(lock)
    gc.freeze()  # a collection would copy the memory of every object
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this process when its parent was killed. It would wait to send its pictures forever."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


def is_killed_worker(error: BaseException) -> bool:
    """Return whether an error is that of a killed worker. It may be raised anywhere, by a signal.

    The message for the user is WORKER_KILLED.
    """
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
