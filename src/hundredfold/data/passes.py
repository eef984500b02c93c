"""Remember results of passes over all pictures of a list, such as the means of their channels."""

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hundredfold.support.files import write_atomic

RESULTS = ".results"
"""Suffix of a file with results, beside that with the facts about the pictures."""


def remembered(path: Path, state: bytes, key: str, compute: Callable[[], Any]) -> Any:
    """Return a result that was computed earlier, or compute it and write it to a file.

    Args:
        path: path of the file. It is written again if it is damaged or of other pictures.
        state: fingerprint of the pictures.
        key: name of the result.
        compute: returns the result, which must survive JSON.
    """
    results = _read(path, state)
    if key not in results:
        results[key] = compute()
        content = state + json.dumps(results).encode()
        with suppress(OSError):  # it can be computed again
            write_atomic(path, content + _checksum(content))
    return results[key]


def _read(path: Path, state: bytes) -> dict[str, Any]:
    with suppress(OSError):
        content = path.read_bytes()
        if content.startswith(state) and content[-4:] == _checksum(content[:-4]):
            results: dict[str, Any] = json.loads(content[len(state) : -4])
            return results
    return {}


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")
