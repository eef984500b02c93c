"""Fetch one file: with progress, resumed where it was cut, never half-written under its name."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from hundredfold.support.console import byte_progress
from hundredfold.support.errors import UnavailableError

TIMEOUT = 20
"""Seconds without a byte before the connection is given up."""
CHUNK = 1 << 18
TRIES = 3


class _NetworkError(Exception):
    """The network's fault, not the disk's."""


def partial_path(target: Path) -> Path:
    """Return where what has come of a file is, until it is whole."""
    return target.with_name(target.name + ".part")


def download(url: str, target: Path) -> None:
    """Fetch `url` into `target`, by way of `target`.part, which a later call goes on from.

    Raises:
        UnavailableError: no network, the server does not give the file, or the target cannot be
            written (permission, full disk).
    """
    part = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            try:
                if _fetch(url, part):
                    part.replace(target)
                    return
                problem = "the connection was cut; what came is kept, the same command goes on"
            except _NetworkError as error:
                problem = str(error)
                if not part.exists():
                    break  # nothing ever came: asking again would only cost time
    except OSError as error:
        raise UnavailableError(
            f"Cannot write {target}: {error.strerror or error}. Make room there, or put "
            f"{target.name} somewhere yourself and name its folder in HUNDREDFOLD_DATA."
        ) from error
    raise UnavailableError(
        f"Cannot fetch {url}: {problem}. With the file from elsewhere, name its place by --data."
    )


def _fetch(url: str, part: Path) -> bool:
    """Append what is missing of `url` to `part`; return whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    response = _open(url, have)
    if response is None:  # `part` is no piece of the file
        part.unlink()
        return False
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends all of it again
        total = have + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if have else "wb") as file, byte_progress(url, total, have) as advance:
            while chunk := _read(response):
                file.write(chunk)
                advance(len(chunk))
    return part.stat().st_size >= total


def _open(url: str, start: int) -> http.client.HTTPResponse | None:
    """Return the answer from byte `start` on, or None where the file is not longer than that."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the official address
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except (OSError, http.client.HTTPException) as error:
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return None
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _NetworkError(str(reason)) from error
    assert isinstance(response, http.client.HTTPResponse)  # noqa: S101  # http and https give it
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(str(error) or type(error).__name__) from error
