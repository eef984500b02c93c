"""Convert a picture from any source to the (3, S, S) uint8 tensor that every model takes."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hundredfold.pictures.pixels import (
    MAX_FILE,
    Fit,
    SquarePixels,
    formats,
    open_picture,
    read_square,
    square,
)
from hundredfold.pictures.urls import fetch_url, is_url
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded

Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | BinaryIO | Image.Image | npt.NDArray[np.uint8] | Tensor
)
"""A path, an http(s) URL, the content of a file, a file open in binary mode, a Pillow image, or
uint8 pixels. Pixels are an array (H, W) or (H, W, 1 to 4) in Pillow's channel order, or a tensor
(1 or 3, H, W)."""


MAX_PNG = 128
"""Largest side in pixels of a picture that is embedded as PNG, which is larger but exact."""


def is_single_picture(pictures: object) -> bool:
    """Return whether an object is one picture, not several. Non-iterable objects count as one."""
    if isinstance(pictures, np.ndarray | Tensor):
        return pictures.ndim < 4
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return (
        isinstance(pictures, kinds)
        or hasattr(pictures, "read")
        or not hasattr(pictures, "__iter__")
    )


def load_picture(picture: Picture, size: int, fit: Fit = "crop") -> Tensor:
    """Return a picture as a model of that input size and fit takes it: (3, size, size) uint8.

    `pixels.square` describes the preparation. A JPEG file is decoded at reduced size if that is
    enough.

    Raises:
        UserError: the picture cannot be read, or is not a picture.
        UnavailableError: the URL cannot be reached.
    """
    with picture_errors(_name(picture)):
        if isinstance(picture, Tensor | np.ndarray):
            picture = _from_pixels(picture)
        if isinstance(picture, Image.Image):
            return as_tensor(square(picture, size, fit))
        with open_picture(_file(picture)) as image:
            return as_tensor(read_square(image, size, fit))


def load_parts(
    pictures: Sequence[Picture], size: int, fit: Fit = "crop", count: int = 500
) -> Iterator[Tensor]:
    """Yield pictures in order, as `load_picture` returns them, (B, 3, size, size) uint8 at a time.

    Args:
        pictures: read by several threads.
        size: side in pixels.
        fit: how pictures become squares.
        count: number of pictures that are in memory at a time.

    Raises:
        UserError, UnavailableError: as `load_picture` does.
    """
    load = partial(load_picture, size=size, fit=fit)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(pictures), count):
            yield torch.stack(list(pool.map(load, pictures[start : start + count])))


@contextmanager
def picture_errors(name: str) -> Iterator[None]:
    """Turn any exception within the block into a sentence about the picture of that name.

    Raises:
        UserError: the sentence.
    """
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} cannot be read as a picture: it is damaged, or not in a supported format "
            f"({', '.join(formats())})."
        ) from error
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from error
        raise UserError(f"{name} cannot be read as a picture: {error}.") from error


def as_tensor(pixels: SquarePixels) -> Tensor:
    """Return pixels (S, S, 3) as a tensor (3, S, S)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_image(image: Tensor) -> Image.Image:
    """Return a picture, (3, H, W) uint8, as a Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def data_uri(image: Tensor, *, exact: bool = False) -> str:
    """Return a picture, (3, H, W) uint8, as a data URI, to embed in a page.

    It holds a PNG file, or a JPEG file if the picture has more than MAX_PNG pixels a side and need
    not be exact.
    """
    kind = "PNG" if exact or image.shape[-1] <= MAX_PNG else "JPEG"
    to_image(image).save(buffer := io.BytesIO(), kind, optimize=True, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture_suffixes() -> list[str]:
    """Return the suffixes of picture files, in small letters."""
    return [suffix for suffix, kind in Image.registered_extensions().items() if kind in formats()]


def is_picture(path: Path) -> bool:
    """Return whether a file name is that of a picture. Hidden files do not count."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind in formats() and not path.name.startswith(".")


def _from_pixels(pixels: npt.NDArray[np.uint8] | Tensor) -> Image.Image:
    if isinstance(pixels, Tensor):
        pixels = (pixels.movedim(0, -1) if pixels.ndim == 3 else pixels).cpu().numpy()
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(
            f"Pixels must be uint8 of shape (H, W) or (H, W, 1 to 4), or (C, H, W) as a tensor, "
            f"not {array.dtype} of shape {array.shape}."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    try:
        return Image.fromarray(array)
    except TypeError as error:
        raise UserError(f"Pixels of shape {array.shape} are not a picture: {error}.") from error


def _name(picture: object) -> str:
    """Return the name of a picture in errors."""
    if isinstance(picture, str | os.PathLike):
        return str(picture)
    return "The picture" if isinstance(picture, Image.Image | Tensor | np.ndarray) else "The file"


def _file(source: Any) -> Path | BinaryIO:
    """Return the path of a picture, or an open file with its content."""
    if isinstance(source, str) and is_url(source):
        return io.BytesIO(fetch_url(source))
    if isinstance(source, str | os.PathLike):
        return expanded(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not hasattr(source, "read"):
        raise UserError(
            "A picture must be a path, a URL, the content of a file, an open file, a Pillow image, "
            f"an array or a tensor, not {type(source).__name__}."
        )
    if isinstance(source, io.TextIOBase):
        raise UserError("The file of a picture must be open in binary mode, 'rb'.")
    if getattr(source, "seekable", bool)():
        source.seek(0)
    content = source.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise UserError(f"The file is larger than {MAX_FILE >> 20:,} MiB.")
    return io.BytesIO(content)
