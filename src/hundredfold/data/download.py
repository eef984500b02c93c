"""Download one file with a progress bar. A download that was cut off is resumed."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from hundredfold.support.console import byte_progress
from hundredfold.support.errors import UnavailableError

TIMEOUT = 20
"""Time in seconds without any data after which the connection is given up."""
CHUNK = 1 << 18
TRIES = 3


class _NetworkError(Exception):
    """A failure of the network, not of the disk."""


def partial_path(target: Path) -> Path:
    """Return the path of an incomplete download."""
    return target.with_name(target.name + ".part")


def download(url: str, target: Path) -> None:
    """Download `url` to `target`. Incomplete data stays in `target`.part for a later call.

    Raises:
        UnavailableError: there is no network, the server does not send the file, or the target
            cannot be written (permission, full disk).
    """
    part = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            try:
                if _fetch(url, part):
                    part.replace(target)
                    return
                problem = "the connection was lost; run the same command again to resume"
            except _NetworkError as error:
                problem = str(error)
                if not part.exists():
                    break  # no data ever arrived, so another try would only cost time
    except OSError as error:
        raise UnavailableError(
            f"Cannot write {target}: {error.strerror or error}. Make room there, or download "
            f"{target.name} yourself and pass its path as --data."
        ) from error
    raise UnavailableError(
        f"Cannot download {url}: {problem}. If you have the file already, pass its path as --data."
    )


def _fetch(url: str, part: Path) -> bool:
    """Append the missing bytes of `url` to `part`; return whether it is complete now."""
    have = part.stat().st_size if part.exists() else 0
    response = _open(url, have)
    if response is None:  # `part` is not the start of this file
        part.unlink()
        return False
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends the whole file again
        total = have + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if have else "wb") as file, byte_progress(url, total, have) as advance:
            while chunk := _read(response):
                file.write(chunk)
                advance(len(chunk))
    return part.stat().st_size >= total


def _open(url: str, start: int) -> http.client.HTTPResponse | None:
    """Return the response from byte `start` on, or None if the file is not longer than that."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the official URL
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except (OSError, http.client.HTTPException) as error:
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return None
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _NetworkError(str(reason)) from error
    assert isinstance(response, http.client.HTTPResponse)  # noqa: S101  # always so for http and https
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(str(error) or type(error).__name__) from error
