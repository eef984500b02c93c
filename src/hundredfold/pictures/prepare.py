"""From whatever a picture comes as to the (3, S, S) uint8 that every model's path begins with."""

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hundredfold.pictures.pixels import (
    MOST_FILE,
    Square,
    formats,
    open_picture,
    read_square,
    square,
)
from hundredfold.pictures.urls import fetch, is_address
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded

Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | BinaryIO | Image.Image | npt.NDArray[np.uint8] | Tensor
)
"""A path, an http(s) address, a file's content, a file that is open for bytes, a Pillow image, or
uint8 pixels: an array (H, W) or (H, W, 1 to 4) as Pillow and OpenCV-in-RGB have it, a tensor
(1 or 3, H, W) as torch does."""


def is_one(pictures: object) -> bool:
    """Return whether something is a picture rather than several; what is neither counts as one."""
    if isinstance(pictures, np.ndarray | Tensor):
        return pictures.ndim < 4
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return (
        isinstance(pictures, kinds)
        or hasattr(pictures, "read")
        or not hasattr(pictures, "__iter__")
    )


def load_picture(picture: Picture, size: int) -> Tensor:
    """Return a picture as a model of that input size takes it: (3, size, size) uint8.

    See `pixels.square` for how it is prepared. A JPEG file is decoded at a fraction of its size
    where that is enough.

    Raises:
        UserError: it cannot be read, or is no picture.
        UnavailableError: the address cannot be reached.
    """
    with readable(_name(picture)):
        if isinstance(picture, Tensor | np.ndarray):
            picture = _from_pixels(picture)
        if isinstance(picture, Image.Image):
            return as_tensor(square(picture, size))
        with open_picture(_file(picture)) as image:
            return as_tensor(read_square(image, size))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what Pillow raises within into a sentence about the picture of that name.

    Raises:
        UserError: the sentence.
    """
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} cannot be read as a picture: it is damaged, or in no format read here "
            f"({', '.join(formats())})."
        ) from error
    except Exception as error:  # Pillow's decoders raise a score of kinds on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from error
        raise UserError(f"{name} cannot be read as a picture: {error}.") from error


def as_tensor(pixels: Square) -> Tensor:
    """Return pixels (S, S, 3) as (3, S, S)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_image(image: Tensor) -> Image.Image:
    """Return a picture, (3, H, W) uint8, as Pillow has it."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def data_address(image: Tensor) -> str:
    """Return a picture, (3, H, W) uint8, as an address that holds it whole: for a page."""
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


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


def _name(picture: object) -> str:
    """Return what an error calls a picture."""
    if isinstance(picture, str | os.PathLike):
        return str(picture)
    return "The picture" if isinstance(picture, Image.Image | Tensor | np.ndarray) else "The file"


def _file(source: Any) -> Path | BinaryIO:
    """Return what holds a picture's content, wherever that comes from."""
    if isinstance(source, str) and is_address(source):
        return io.BytesIO(fetch(source))
    if isinstance(source, str | os.PathLike):
        return expanded(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not hasattr(source, "read"):
        raise UserError(
            "A picture is a path, an address, a file's content, an open file, a Pillow image, an "
            f"array or a tensor: this is {type(source).__name__}."
        )
    if isinstance(source, io.TextIOBase):
        raise UserError("A picture's file must be open for bytes, in mode 'rb': this one is not.")
    if getattr(source, "seekable", bool)():
        source.seek(0)
    content = source.read(MOST_FILE + 1)
    if len(content) > MOST_FILE:
        raise UserError(f"The file is larger than {MOST_FILE >> 20:,} MiB.")
    return io.BytesIO(content)
