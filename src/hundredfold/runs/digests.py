"""Verification of a finished run: its final metrics hold the SHA-256 of each of its files.

They also hold the SHA-256 of their own text, computed with zeros in the place of that digest.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.jsonio import parse_object

ENTRY = "sha256"
"""Key of the metrics that maps file names to digests."""
PLACEHOLDER = "0" * 64
"""Stands for the digest of the text itself while that digest is computed."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def format_metrics(metrics: Mapping[str, Any], name: str, digests: Mapping[str, str]) -> str:
    """Return metrics and the digests of a run's files as JSON.

    Args:
        metrics: values that JSON can hold.
        name: name of the file that the text is written to.
        digests: the digest of every other file, by file name.
    """
    text = json.dumps({**metrics, ENTRY: {**digests, name: PLACEHOLDER}}, indent=2) + "\n"
    return text.replace(PLACEHOLDER, digest(text.encode()))


def read_metrics(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the metrics and the digests of the other files from a file of `format_metrics`.

    Raises:
        DamagedError: the file is damaged, was changed, or has no digests.
        UserError: the file cannot be read.
    """
    content = read_file(path)
    try:
        metrics = parse_object(to_text(path, content), str(path))
    except UserError as error:
        raise DamagedError(str(error)) from error
    digests = metrics.pop(ENTRY, None)
    if not isinstance(digests, dict) or not all(isinstance(d, str) for d in digests.values()):
        raise DamagedError(
            f"{path} has no checksums: the run is damaged, or an earlier version of hundredfold "
            "wrote it. A run that cannot be verified is not used: train again."
        )
    own = digests.pop(path.name, "").encode(errors="replace")
    if len(own) != len(PLACEHOLDER) or (
        digest(content.replace(own, PLACEHOLDER.encode())).encode() != own
    ):
        raise _changed(path)
    return metrics, digests


def digest_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the digest of each file by its name."""
    return {path.name: digest(read_file(path)) for path in paths}


def read_file(path: Path, digests: Mapping[str, str] | None = None) -> bytes:
    """Return a file's content.

    Args:
        path: the file.
        digests: the recorded digest of each file by its name; None verifies nothing.

    Raises:
        DamagedError: it is not a regular file, and reading it might never end; or its content does
            not have its digest.
        UserError: it cannot be read.
    """
    if not path.is_file():
        raise DamagedError(f"{path} is not a file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except MemoryError as error:
        raise UserError(f"{path} is larger than the memory.") from error
    if digests is not None and digest(content) != digests.get(path.name):
        raise _changed(path)
    return content


def _changed(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is not what training wrote: it is damaged, or it was changed afterwards."
    )


def to_text(path: Path, content: bytes) -> str:
    """Return a file's content as text.

    Raises:
        UserError: the content is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
