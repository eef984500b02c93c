"""Files that are either whole or not there."""

import glob
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import platformdirs

from hundredfold.support.errors import UserError

UNFINISHED = ".unfinished"
"""What the names of files end with that have not got their own yet."""
ABANDONED = 3600
"""Seconds after which a file that is still unfinished was left by a process that was killed."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ and ~user replaced; of a user unknown here it stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # pathlib's own raises there


def cache_folder() -> Path:
    """Return the user's cache folder for hundredfold; it need not exist."""
    return platformdirs.user_cache_path("hundredfold")


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk, then give it its name.

    What killed processes left of it is removed.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was before.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        with suppress(OSError):  # another process may have been faster
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Delete what `write_atomic` left in a folder where its process was killed."""
    for path in folder.glob(f"*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def stamp(path: str | Path) -> tuple[int, ...]:
    """Return numbers that change when a file does, or when another takes its name.

    The time of a file's content can be set, and is where files are copied or exchanged; that of its
    last change of any kind, and its number on the disk, cannot.

    Raises:
        OSError: it is not there.
    """
    stat = os.stat(path)  # noqa: PTH116  # of a hundred thousand, pathlib's takes seconds
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def fingerprint(*parts: object) -> bytes:
    """Return the SHA-256 of values by their `repr`: what a cache knows its content by."""
    return hashlib.sha256(repr(parts).encode()).digest()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Let one process at a time do what is within; others wait, each with the same lock file.

    Where that file cannot be written, neither can what it guards: nobody has to wait.

    Yields:
        whether others do wait.
    """
    lock = filelock.FileLock(path)
    with suppress(OSError, NotImplementedError):  # the latter where the file system has no locks
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Flush a folder's names to disk, where the system lets folders be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> Path:
    """Return a folder that is there now.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {path}: {error.strerror}.") from error
    return path


def refuse_link(path: Path) -> None:
    """Refuse to write to a link in a folder that somebody else may have made.

    Raises:
        UserError: the path is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link, so nothing is written there: remove it.")


def save_file(path: Path, content: bytes | str) -> None:
    """Write a file as `write_atomic` does, for a user who wants to know what went wrong.

    Text becomes UTF-8; bytes of a file's name that are no text become escapes that JSON reads back.

    Raises:
        UserError: the folder is not there or cannot be written, or the disk is full.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error
