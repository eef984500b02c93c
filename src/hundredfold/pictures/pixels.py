"""Decode a picture into the pixels that a model takes: upright, on white, and square.

This module needs only Pillow and numpy, because a copy of it goes with every exported ONNX model.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import jpeg_factory

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000",
)  # fmt: skip
"""Pillow's names of the supported formats. Pillow may have been built without some of them."""
MAX_FILE = 2**30
"""Maximum size of a file in bytes."""
MAX_PIXELS = 100_000_000
"""Maximum number of decoded pixels, of up to 4 bytes each. A file of a few kilobytes can claim
more."""
MAX_STORED = 256_000_000
"""Maximum number of pixels in a JPEG file that is decoded at reduced size. Phones take such
pictures."""
DRAFT = 2
"""A JPEG file is decoded at half, a quarter or an eighth of its size if each side is still at least
this many times what it is resized to. This is several times faster and changes pixels by one or two
grey levels."""
GREY = (127, 127, 127)
"""Colour of the bars beside or above a padded picture."""
LARGE = 64 * 2**20
"""Memory in bytes above which pictures are decoded one at a time."""
BAND = 2**22
"""Number of pixels converted at a time. Copies of a whole large picture would fill the memory."""
JPEG_START = b"\xff\xd8\xff"

large_picture_lock: AbstractContextManager[object] = threading.Lock()
"""Lock that is held while a large picture is decoded."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that turns a picture upright, for each EXIF orientation."""
EXCHANGED = (5, 6, 7, 8)
"""EXIF orientations of pictures whose width and height are exchanged."""

Fit: TypeAlias = Literal["crop", "squash", "pad"]
"""How a picture becomes a square of side S. crop: the shorter side is resized to S, and the longer
side is cropped to its centre. squash: both sides are resized to S. pad: the longer side is resized
to S, and grey bars fill the rest. A square picture becomes the same in all three."""
SquarePixels = npt.NDArray[np.uint8]
"""Pixels of shape (S, S, 3)."""


def set_large_picture_lock(lock: AbstractContextManager[object]) -> None:
    """Set the lock for large pictures to one that is shared with other processes."""
    global large_picture_lock  # noqa: PLW0603
    large_picture_lock = lock


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that can be read. None of them runs another program."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file in binary mode. A device or a pipe could block or never end.

    Raises:
        ValueError: the path is not a regular file, or the file is too large.
        OSError: the file cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE >> 20:,} MiB")
    return path.open("rb")


@contextmanager
def open_picture(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """Open a picture and read its header. The rest is read when the picture is decoded.

    Args:
        file: a path, or an open file that can be rewound.

    Raises:
        ValueError, OSError: as `open_file` does.
        Exception: whatever Pillow raises if the file is not a picture.
    """
    with open_file(file) if isinstance(file, Path) else nullcontext(file) as stream:
        stream.seek(0)
        start = stream.read(len(JPEG_START))
        stream.seek(0)
        # Image.open would refuse a large JPEG, even if it is decoded at reduced size.
        opened = jpeg_factory(stream) if start == JPEG_START else Image.open(stream, "r", formats())
        with opened as image:
            yield image


def read_square(image: Image.Image, size: int, fit: Fit = "crop") -> SquarePixels:
    """Decode a picture that `open_picture` opened, and return it as `square` does.

    Raises:
        ValueError: the picture has too many pixels, or grey levels out of range.
        Exception: whatever Pillow raises if the picture is damaged.
    """
    stored = image.size
    _check_pixels(image, MAX_STORED if image.format in ("JPEG", "MPO") else MAX_PIXELS)
    width, height = contained(stored, size) if fit == "pad" else (size, size)
    image.draft(None, (DRAFT * width, DRAFT * height))
    memory = 4 * image.width * image.height
    if image.info.get("progressive"):  # coefficients of the whole file: 3 channels of 2 bytes
        memory += 6 * stored[0] * stored[1]
    with large_picture_lock if memory > LARGE else nullcontext():
        return _square(image, size, fit, stored if image.size != stored else None)


def square(image: Image.Image, size: int, fit: Fit = "crop") -> SquarePixels:
    """Return a picture of any mode as (size, size, 3) uint8.

    The picture is turned upright by its EXIF orientation, and transparency is laid over white. Grey
    levels become three equal channels; 16-bit levels and floats in 0..1 are scaled to 0..255. The
    picture becomes a square as `Fit` describes, with bilinear antialiased resizing.

    Raises:
        ValueError: the picture has too many pixels, or grey levels out of range.
        Exception: whatever Pillow raises if the picture is damaged.
    """
    return _square(image, size, fit, None)


def contained(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the width and height of a picture whose longer side is resized to `size`.

    The shorter side keeps the proportion, but has at least one pixel.
    """
    longer = max(sides)
    width, height = (max(1, round(side / longer * size)) for side in sides)
    return width, height


def _square(
    image: Image.Image, size: int, fit: Fit, stored: tuple[int, int] | None
) -> SquarePixels:
    """Return what `square` does; `stored` has the sides before a reduced decoding, if any."""
    _check_pixels(image, MAX_PIXELS)
    image.load()
    _check_pixels(image, MAX_PIXELS)  # an icon may contain more pixels than its header says
    sides = stored or image.size
    orientation = _orientation(image)
    image = _opaque(image)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if orientation in EXCHANGED:
        sides = sides[::-1]
    if image.size != (size, size):
        image = _resized(image, size, fit, sides)
    return np.array(image.convert("RGB"))


def _resized(image: Image.Image, size: int, fit: Fit, sides: tuple[int, int]) -> Image.Image:
    """Return a picture, whose proportion is that of `sides`, as a square."""
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    width, height = contained(sides, size) if fit == "pad" else (size, size)
    if image.width < width and image.height > height:
        # Pillow resizes rows first: a narrow and very high picture would fill the memory.
        image = image.resize((image.width, height), Image.Resampling.BILINEAR)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if fit == "squash":
        return image
    result = Image.new("RGB", (size, size), GREY)
    result.paste(image, (round((size - width) / 2), round((size - height) / 2)))
    return result


def _check_pixels(image: Image.Image, limit: int) -> None:
    if image.width * image.height > limit:
        raise ValueError(
            f"its {image.width:,} x {image.height:,} pixels are more than {limit:,}, so resize it "
            "first"
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture, or 1 if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF tag does not make the picture unusable
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB, or a grey one to L, without transparency, band by band."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    grey = image.mode.startswith(("I", "F"))
    result = Image.new("L" if grey else "RGB", image.size)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_to_8_bits(band) if grey else _over_white(band), (0, top))
    return result


def _over_white(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB with its transparency laid over white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey levels, or floats in 0..1, to 0..255."""
    levels = np.asarray(image)
    maximum = 65535 if image.mode.startswith("I") else 1
    if not (levels.min() >= 0 and levels.max() <= maximum):  # also true if there is a NaN
        raise ValueError(f"its grey levels must be in 0..{maximum}, but are not")
    return Image.fromarray((levels * np.float32(255 / maximum)).round().astype(np.uint8))
