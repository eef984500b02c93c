"""Pictures that are not square, and how plain functions make them square."""

import io
from typing import get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from hundredfold.pictures.pixels import GREY, Fit

FITS: tuple[Fit, ...] = get_args(Fit)
BILINEAR = Image.Resampling.BILINEAR


def noise(width: int, height: int, mode: str, seed: int = 0) -> Image.Image:
    """Return a picture of random pixels of a mode."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a picture of large patches of random colours that flow into each other."""
    return noise(5, 5, "RGB", seed).resize((width, height), Image.Resampling.BICUBIC)


def plainly(image: Image.Image, size: int, fit: Fit, turn: int = 1) -> npt.NDArray[np.uint8]:
    """Return what `square` does to a picture of an EXIF orientation, by plain functions."""
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image.convert("RGB"))
    array = array.transpose(1, 0, 2) if turn > 4 else array
    array = array[::-1] if turn in (3, 4, 7, 8) else array
    array = array[:, ::-1] if turn in (2, 3, 6, 7) else array
    image = Image.fromarray(np.ascontiguousarray(array))
    if fit == "pad":
        return np.asarray(ImageOps.pad(image, (size, size), BILINEAR, GREY))
    crop = ImageOps.fit(image, (size, size), BILINEAR)
    return np.asarray(crop if fit == "crop" else image.resize((size, size), BILINEAR))


def jpeg(image: Image.Image, turn: int = 1) -> bytes:
    """Return the content of a JPEG file with an EXIF orientation."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()
