"""Values in a file that says whose they are and whether it is whole.

A seal is a fingerprint, the values as JSON, and a checksum (CRC-32) of both.
"""

import json
import zlib
from typing import Any


def seal(values: Any, state: bytes, before: int = 0) -> bytes:
    """Return values with a fingerprint and a checksum.

    Args:
        values: what JSON can hold.
        state: fingerprint of what the values are about.
        before: checksum of what precedes them in the file.
    """
    content = state + json.dumps(values).encode()
    return content + _checksum(content, before)


def unseal(content: bytes, state: bytes, before: int = 0) -> Any:
    """Return the values of a seal; None if it is damaged, or has another fingerprint.

    Args:
        content: what `seal` returned.
        state: as in `seal`.
        before: as in `seal`.
    """
    if not content.startswith(state) or content[-4:] != _checksum(content[:-4], before):
        return None
    return json.loads(content[len(state) : -4])


def _checksum(content: bytes, before: int) -> bytes:
    return zlib.crc32(content, before).to_bytes(4, "big")
