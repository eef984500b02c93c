"""Remember results of passes over all pictures of a list, such as the means of their channels."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hundredfold.data.sealed import seal, unseal
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
    results: dict[str, Any] = {}
    with suppress(OSError):
        results = unseal(path.read_bytes(), state) or {}
    if key not in results:
        results[key] = compute()
        with suppress(OSError):  # it can be computed again
            write_atomic(path, seal(results, state))
    return results[key]
