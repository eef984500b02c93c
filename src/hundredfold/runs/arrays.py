"""Tensors in numpy's compressed files, with a limit on the unpacked size."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hundredfold.support.errors import UserError

MOST_GROWTH, FREE_BYTES = 50, 2**28
"""A file may unpack to FREE_BYTES plus MOST_GROWTH times its own size."""


def to_npz(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the content of an .npz file."""
    arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
    np.savez_compressed(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


def from_npz(content: bytes, names: Iterable[str], path: object) -> dict[str, Tensor]:
    """Return tensors from a file that `to_npz` wrote.

    Args:
        content: content of the .npz file.
        names: names of the tensors to return.
        path: name of the file in an error message.

    Raises:
        UserError: the content is damaged, or too large when unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > FREE_BYTES + MOST_GROWTH * len(content):
            raise ValueError(f"it would unpack to {size:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in names}
    except Exception as error:  # damaged zip files raise errors of many types
        raise UserError(f"{path} is damaged: {error}.") from error
