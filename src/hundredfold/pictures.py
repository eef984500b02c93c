"""From whatever a picture comes as to the (3, S, S) uint8 that every model's path begins with."""

import base64
import io
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hundredfold.addresses import fetch, is_address
from hundredfold.errors import UserError
from hundredfold.files import expanded

Picture: TypeAlias = str | Path | bytes | Image.Image | npt.NDArray[np.uint8] | Tensor
"""A path, an http(s) address, a file's content, a Pillow image, or uint8 pixels: an array (H, W) or
(H, W, 1 to 4) as Pillow and OpenCV-in-RGB have it, a tensor (1 or 3, H, W) as torch does."""

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000",
)  # fmt: skip
"""As Pillow calls them; each only where it was built with it."""
MOST_PIXELS = 100_000_000
"""A file of some kilobytes may claim more, and fill the memory."""
DRAFT = 2
"""A JPEG file is decoded at half, a quarter or an eighth of its size where that leaves at least so
many times the side that is wanted: several times faster, and a grey level or two apart."""


def load_picture(picture: Picture, size: int) -> Tensor:
    """Return a picture as a model of that input size takes it: (3, size, size) uint8.

    Turned upright as its EXIF tag says, transparency over white, grey levels as equal channels (of
    16 bits scaled to 8, of floating point from 0..1); the shorter side is brought to `size`
    (bilinear, antialiased) and the middle cut out of the longer one.

    Raises:
        UserError: it cannot be read, or is no picture.
        UnavailableError: the address cannot be reached.
    """
    return fit(_rgb(picture, size), size)


def fit(image: Image.Image, size: int) -> Tensor:
    """Return an RGB picture as (3, size, size) uint8; one of that size already is not touched."""
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_image(image: Tensor) -> Image.Image:
    """Return a picture, (3, H, W) uint8, as Pillow has it."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def data_address(image: Tensor) -> str:
    """Return a picture, (3, H, W) uint8, as an address that holds it whole: for a page."""
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rgb(picture: Picture, size: int) -> Image.Image:
    """Return the picture, decoded whole, upright and in RGB, for what will be `size` pixels."""
    name = "The picture"
    try:
        if isinstance(picture, Image.Image):
            return _to_rgb(picture)
        if isinstance(picture, Tensor | np.ndarray):
            return _to_rgb(_from_pixels(picture))
        name = "The file" if isinstance(picture, bytes) else str(picture)
        with Image.open(_file(picture), formats=formats()) as image:
            _check_size(image)
            image.draft(None, (DRAFT * size, DRAFT * size))
            return _to_rgb(image)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} cannot be read as a picture: it is damaged, or in no format read here "
            f"({', '.join(formats())})."
        ) from error
    except Exception as error:  # Pillow's decoders raise a score of kinds on damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{name} cannot be read as a picture: {reason}.") from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise UserError(
            f"A picture of {image.width:,} x {image.height:,} pixels is larger than "
            f"{MOST_PIXELS:,}: make it smaller first."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode upright and in RGB."""
    _check_size(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels of 16 bits, or floating-point ones of 0..1, to 0..255."""
    levels = np.asarray(image)
    most = 65535 if image.mode.startswith("I") else 1
    if not (levels.min() >= 0 and levels.max() <= most):  # also where there is a NaN
        raise UserError(f"Grey levels must lie in 0..{most}: these do not.")
    return Image.fromarray((levels * np.float32(255 / most)).round().astype(np.uint8))


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that are read: none that runs another program, or is no picture."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture by its name; hidden files are none."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind in formats() and not path.name.startswith(".")


def _from_pixels(pixels: npt.NDArray[np.uint8] | Tensor) -> Image.Image:
    if isinstance(pixels, Tensor):
        pixels = (pixels.movedim(0, -1) if pixels.ndim == 3 else pixels).cpu().numpy()
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(
            f"Pixels must be uint8, 0..255, of shape (H, W) or (H, W, 1 to 4), or (C, H, W) as a "
            f"tensor: these are {array.dtype} of shape {array.shape}."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    try:
        return Image.fromarray(array)
    except TypeError as error:
        raise UserError(f"Pixels of shape {array.shape} are no picture: {error}.") from error


def _file(source: str | Path | bytes) -> Path | io.BytesIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str) and is_address(source):
        return io.BytesIO(fetch(source))
    return expanded(source)
