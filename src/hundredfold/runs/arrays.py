"""Tensors in numpy's compressed files, with a limit to what they unpack to."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hundredfold.support.errors import UserError

MOST_GROWTH, FREE_BYTES = 50, 2**28
"""Times its size that a compressed file may unpack to, beyond so many bytes."""


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the content of an .npz file."""
    arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
    np.savez_compressed(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


def unpack(content: bytes, names: Iterable[str], path: object) -> dict[str, Tensor]:
    """Return the tensors of these names that `pack` packed.

    Args:
        content: of an .npz file.
        names: those to return.
        path: what to call the file in an error.

    Raises:
        UserError: the content is damaged, or would fill the memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > FREE_BYTES + MOST_GROWTH * len(content):
            raise ValueError(f"it would unpack to {size:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in names}
    except Exception as error:  # zip files can be damaged in a score of ways
        raise UserError(f"{path} is damaged: {error}.") from error
