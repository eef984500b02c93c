"""How a finished run is verified: its final metrics hold the SHA-256 of each of its files.

And of themselves: the digest of their own text, with zeros in the place of that digest.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.jsonio import parse_object

ENTRY = "sha256"
"""Of the metrics; holds the digests by the files' names."""
PLACE = "0" * 64
"""Where a digest of the text itself goes."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sealed(metrics: Mapping[str, Any], name: str, others: Mapping[str, str]) -> str:
    """Return metrics as JSON, with the digests of a run's files.

    Args:
        metrics: what JSON can hold.
        name: of the file that the text is for.
        others: digest of each other file, by name.
    """
    text = json.dumps({**metrics, ENTRY: {**others, name: PLACE}}, indent=2) + "\n"
    return text.replace(PLACE, digest(text.encode()))


def unsealed(path: Path, content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the metrics, and the digests of a run's other files, of what `sealed` wrote.

    Args:
        path: of the file.
        content: what it holds.

    Raises:
        DamagedError: the content is damaged or was changed, or has no digests.
    """
    try:
        metrics = parse_object(as_text(path, content), str(path))
    except UserError as error:
        raise DamagedError(str(error)) from error
    digests = metrics.pop(ENTRY, None)
    if not isinstance(digests, dict) or not all(isinstance(d, str) for d in digests.values()):
        raise DamagedError(
            f"{path} has no checksums: the run is damaged, or of an earlier version of "
            "hundredfold. What cannot be verified is not used: train again."
        )
    own = digests.pop(path.name, "").encode(errors="replace")
    if len(own) != len(PLACE) or digest(content.replace(own, PLACE.encode())).encode() != own:
        raise changed(path)
    return metrics, digests


def changed(path: Path) -> DamagedError:
    """Return what to raise about a file that has not its digest."""
    return DamagedError(f"{path} is not what training wrote: it is damaged, or was changed since.")


def as_text(path: Path, content: bytes) -> str:
    """Return a file's content as text.

    Raises:
        UserError: it is none.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        DamagedError: it is no regular file, whose reading might never end.
        UserError: it cannot be read.
    """
    if not path.is_file():
        raise DamagedError(f"{path} is not a file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except MemoryError as error:
        raise UserError(f"{path} is larger than the memory.") from error
