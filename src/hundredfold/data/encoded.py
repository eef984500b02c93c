"""Pictures that stay in their files and are decoded each time they are needed."""

import hashlib
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hundredfold.pictures.load import picture_errors
from hundredfold.pictures.pixels import Fit, open_file, open_picture, read_square
from hundredfold.support.errors import UserError

CHUNK = 16
"""Number of pictures given to a thread at a time."""
DIGEST_BYTES = 16
"""Number of bytes of the BLAKE2b digest of a file."""

Pixels = npt.NDArray[np.uint8]


class EncodedPictures:
    """The store of a `Split` that is too large for the cache: it decodes what is asked for.

    It takes an index as a tensor (N, 3, S, S) uint8 does, and returns the same pixels. They depend
    only on the index, so neither the number of threads nor that of processes changes a training.
    """

    device = torch.device("cpu")

    def __init__(self, paths: Sequence[str], digests: Sequence[str], size: int, fit: Fit) -> None:
        """Describe pictures without reading them.

        Args:
            paths: path of each picture.
            digests: digest of the content of each file, in hex; empty if it cannot be used.
            size: side S in pixels.
            fit: how a picture becomes a square.
        """
        self.shape = torch.Size((len(paths), 3, size, size))
        self.waited_seconds = 0.0
        """Time that training waited for pictures."""
        self.read_seconds = self.decode_seconds = 0.0
        """Time that reading files and decoding them took, of all threads together."""
        self._paths, self._digests, self._fit = paths, digests, fit

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the pictures at `index`, a slice or (M,) int64: (M, 3, S, S) uint8.

        Raises:
            UserError: a file cannot be read any more, or has changed.
        """
        rows = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        starts = range(0, len(rows), CHUNK)
        targets, parts = ([x[i : i + CHUNK] for i in starts] for x in (pixels, rows))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            try:
                for read, decode in pool.map(self._fill, targets, parts):
                    self.read_seconds += read
                    self.decode_seconds += decode
            finally:
                pool.shutdown(cancel_futures=True)
        return torch.from_numpy(pixels)

    def _fill(self, pixels: Pixels, rows: Sequence[int]) -> tuple[float, float]:
        """Decode rows into pixels; return the seconds that reading and decoding took."""
        reading = decoding = 0.0
        for target, row in zip(pixels, rows, strict=True):
            path, started = Path(self._paths[row]), time.perf_counter()
            with picture_errors(str(path)):
                with open_file(path) as file:
                    content = file.read()
                read = time.perf_counter()
                digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
                if digest != self._digests[row]:
                    raise UserError(
                        f"{path} has changed since the pictures were loaded. Start again to use "
                        "it as it is now."
                    )
                with open_picture(io.BytesIO(content)) as image:
                    target[:] = read_square(image, self.shape[-1], self._fit).transpose(2, 0, 1)
            reading += read - started
            decoding += time.perf_counter() - read
        return reading, decoding
