"""Fetch one file: with progress, resumed where it was cut, never half-written under its name."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from hundredfold.console import byte_progress
from hundredfold.errors import UnavailableError, UserError

TIMEOUT = 20
"""Seconds without a byte before the connection is given up."""
CHUNK = 1 << 18
TRIES = 3
NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)
"""What a network does wrong; any other OSError is the disk's."""


def download(url: str, target: Path) -> None:
    """Fetch `url` into `target`, by way of `target`.part, which a later call goes on from.

    Raises:
        UnavailableError: no network, or the server does not give the file.
        UserError: the target cannot be written (permission, full disk).
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            try:
                if _fetch(url, part):
                    part.replace(target)
                    return
                problem = "the connection was cut; what came is kept, the same command goes on"
            except NETWORK as error:
                problem = str(getattr(error, "reason", None) or error or type(error).__name__)
                if not part.exists():
                    break  # nothing ever came: asking again would only cost time
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Free some space, or name another "
            "folder for the cache in the environment variable XDG_CACHE_HOME."
        ) from error
    raise UnavailableError(f"Cannot fetch {url}: {problem}.")


def _fetch(url: str, part: Path) -> bool:
    """Append what is missing of `url` to `part`; return whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()  # longer than the file: not a piece of it
            return False
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends all of it again
        total = have + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file, byte_progress(url, total, have) as advance:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
    return part.stat().st_size >= total
