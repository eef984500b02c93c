"""A picture's pixels as a model takes them: upright, over white, the middle square.

This module needs Pillow and numpy alone: a copy of it lies beside every exported ONNX model.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import jpeg_factory

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000",
)  # fmt: skip
"""As Pillow calls them; each only where it was built with it."""
MOST_FILE = 2**30
"""Bytes of a file, at most."""
MOST_PIXELS = 100_000_000
"""Pixels that are decoded, at most: up to 4 bytes each, and a file of some kilobytes may claim
more."""
MOST_STORED = 256_000_000
"""Pixels of a JPEG file, at most, that is decoded at a fraction of its size: phones take such."""
DRAFT = 2
"""A JPEG file is decoded at half, a quarter or an eighth of its size where that leaves at least so
many times the side that is wanted: several times faster, and a grey level or two apart."""
LARGE = 64 * 2**20
"""Bytes from which on a picture is decoded by itself, while others of that size wait."""
BAND = 2**22
"""Pixels that are converted at a time: whole copies of a large picture would fill the memory."""
JPEG_START = b"\xff\xd8\xff"

large_turn: AbstractContextManager[object] = threading.Lock()
"""Held while a large picture is decoded."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""

Square = npt.NDArray[np.uint8]
"""(S, S, 3) pixels."""


def take_turns_by(lock: AbstractContextManager[object]) -> None:
    """Let a lock that other processes have as well be what is held for a large picture."""
    global large_turn  # noqa: PLW0603
    large_turn = lock


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that are read: none that runs another program, or is no picture."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_file(path: Path) -> BufferedReader:
    """Open a file for bytes; none that may have no end, or may never begin: a device, a pipe.

    Raises:
        ValueError: it is no regular file, or too large.
        OSError: it cannot be read.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if found.st_size > MOST_FILE:
        raise ValueError(f"it is larger than {MOST_FILE >> 20:,} MiB")
    return path.open("rb")


@contextmanager
def open_picture(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """Read a picture's header; the rest is read when it is decoded.

    Args:
        file: a path, or an open file that can be read from its beginning again.

    Raises:
        ValueError, OSError: as `open_file` does.
        Exception: whatever Pillow raises where it is no picture.
    """
    with open_file(file) if isinstance(file, Path) else nullcontext(file) as stream:
        stream.seek(0)
        start = stream.read(len(JPEG_START))
        stream.seek(0)
        # Pillow's own limit of pixels knows nothing of a JPEG that is decoded at a fraction.
        opened = jpeg_factory(stream) if start == JPEG_START else Image.open(stream, "r", formats())
        with opened as image:
            yield image


def read_square(image: Image.Image, size: int) -> Square:
    """Decode a picture that `open_picture` opened, and return it as `square` does.

    Raises:
        ValueError: it has too many pixels, or grey levels that cannot be scaled.
        Exception: whatever Pillow raises where it is damaged.
    """
    stored = image.width * image.height
    _check_pixels(image, MOST_STORED if image.format in ("JPEG", "MPO") else MOST_PIXELS)
    image.draft(None, (DRAFT * size, DRAFT * size))
    memory = 4 * image.width * image.height
    if image.info.get("progressive"):  # the whole file's coefficients: 3 channels of 2 bytes
        memory += 6 * stored
    with large_turn if memory > LARGE else nullcontext():
        return square(image, size)


def square(image: Image.Image, size: int) -> Square:
    """Return a picture of any mode as (size, size, 3) uint8.

    Turned upright as its EXIF tag says, transparency over white, grey levels as equal channels (of
    16 bits scaled to 8, of floating point from 0..1); the shorter side is brought to `size`
    (bilinear, antialiased) and the middle cut out of the longer one.

    Raises:
        ValueError: it has too many pixels, or grey levels that cannot be scaled.
        Exception: whatever Pillow raises where it is damaged.
    """
    _check_pixels(image, MOST_PIXELS)
    image.load()
    _check_pixels(image, MOST_PIXELS)  # an icon's header may say less than is in it
    turn = TURNED.get(_orientation(image))
    image = _flat(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.array(image.convert("RGB"))


def _check_pixels(image: Image.Image, most: int) -> None:
    if image.width * image.height > most:
        raise ValueError(
            f"its {image.width:,} x {image.height:,} pixels are more than {most:,}: make it "
            "smaller first"
        )


def _orientation(image: Image.Image) -> int:
    """Return how a picture was held, as its EXIF tag says; 1 where that cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of a sound picture: it is taken as it is stored
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, or a grey one in L, without transparency, converted by bands."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    grey = image.mode.startswith(("I", "F"))
    whole = Image.new("L" if grey else "RGB", image.size)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(_to_8_bits(band) if grey else _over_white(band), (0, top))
    return whole


def _over_white(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, its transparency laid over white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels of 16 bits, or floating-point ones of 0..1, to 0..255."""
    levels = np.asarray(image)
    most = 65535 if image.mode.startswith("I") else 1
    if not (levels.min() >= 0 and levels.max() <= most):  # also where there is a NaN
        raise ValueError(f"its grey levels must lie in 0..{most}, and do not")
    return Image.fromarray((levels * np.float32(255 / most)).round().astype(np.uint8))
