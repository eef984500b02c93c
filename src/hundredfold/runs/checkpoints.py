"""Checkpoints: a folder of files that carry their own checksum in their names."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hundredfold.runs.digests import digest
from hundredfold.support.errors import UserError
from hundredfold.support.files import make_folder, save_file
from hundredfold.support.jsonio import parse_object

KEPT = 2
"""Should the newest be damaged, the one before it does."""
LETTERS = 32
"""Of a digest, in a checkpoint's name: half of it is enough against accidents."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood, as of `State.tensors` and `State.facts`."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and delete all but the KEPT last written.

    Args:
        folder: made if it is not there.
        tensors: by name.
        facts: what JSON can hold; `step` orders the checkpoints.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    content = save(on_cpu(tensors), {"facts": json.dumps(facts)})
    path = make_folder(folder) / f"{facts['step']:09}-{digest(content)[:LETTERS]}.safetensors"
    save_file(path, content)
    others = [other for other in _newest_first(folder) if other != path]
    others.sort(key=lambda other: other.stat().st_mtime_ns, reverse=True)  # damaged ones go, too
    for other in others[KEPT - 1 :]:
        other.unlink(missing_ok=True)


def newest_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest whole checkpoint; None where there is none.

    Args:
        folder: need not be there.
        tell: takes a sentence for the user about each that is damaged.

    Raises:
        UserError: all are damaged.
    """
    found = _newest_first(folder)
    for path in found:
        content = path.read_bytes() if path.is_file() else b""
        if path.stem.partition("-")[2] == digest(content)[:LETTERS]:
            return _read(path, content)
        tell(f"{path} is damaged: its checksum is another. It is passed over.")
    if found:
        raise UserError(
            f"All checkpoints in {folder} are damaged. Remove that folder, and the training begins "
            "again from nothing."
        )
    return None


def _read(path: Path, content: bytes) -> Checkpoint:
    """Return what a file with the right checksum holds, which somebody else may have made."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = str(header["__metadata__"]["facts"])
        return Checkpoint(load(content), parse_object(text, str(path)))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no checkpoint of hundredfold: {error!r}.") from error


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors can write them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.safetensors"), reverse=True)
