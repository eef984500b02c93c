"""Write files atomically, lock them, and recognise changes to them."""

import glob
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import platformdirs

from hundredfold.support.errors import UserError

UNFINISHED = ".unfinished"
"""Suffix of temporary files."""
ABANDONED = 3600
"""Age in seconds after which a temporary file counts as left by a killed process."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ and ~user replaced, unless the user is unknown."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # pathlib's raises for unknown users


def cache_folder() -> Path:
    """Return the user's cache folder for hundredfold, which may not exist yet."""
    return platformdirs.user_cache_path("hundredfold")


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file, flush it to disk, then rename it to `path`.

    Temporary files of `path` that killed processes left are removed.

    Raises:
        OSError: the folder cannot be written, or the disk is full. `path` has not changed.
    """
    for old in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        with suppress(OSError):  # another process may have been faster
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()
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
    """Delete the temporary files of `write_atomic` in a folder."""
    for path in folder.glob(f"*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def file_stamp(path: str | Path) -> tuple[int, ...]:
    """Return numbers that change when a file changes or is replaced by another file.

    Tools that copy files set the modification time (mtime), so that alone does not show a change.
    They cannot set the time of the last change of any kind (ctime) or the inode number.

    Raises:
        OSError: there is no such file.
    """
    stat = os.stat(path)  # noqa: PTH116  # pathlib's takes seconds for a hundred thousand files
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def stamp_or_nothing(path: str | Path) -> tuple[int, ...]:
    """Return the stamp of a file, or an empty tuple if there is no such file."""
    try:
        return file_stamp(path)
    except OSError:
        return ()


def fingerprint(*parts: object) -> bytes:
    """Return the SHA-256 of the `repr` of values, which serves as a cache key."""
    return fingerprint_of_each(parts)


def fingerprint_of_each(values: Iterable[object]) -> bytes:
    """Return the SHA-256 of the `repr` of each value, of which there may be millions."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode())
        digest.update(b",")
    return digest.digest()


@contextmanager
def process_lock(path: Path) -> Iterator[bool]:
    """Let only one process at a time run the block, by means of a lock file.

    If the lock file cannot be written, neither can the files that it guards, so the block runs
    without a lock.

    Yields:
        Whether the lock is held.
    """
    lock = filelock.FileLock(path)
    with suppress(OSError, NotImplementedError):  # NotImplementedError: no locks on this disk
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, if the system can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> Path:
    """Create a folder if it does not exist, and return its path.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the folder {path}: {error.strerror}.") from error
    return path


def refuse_link(path: Path) -> None:
    """Refuse to write to a link, which somebody else may have put into the folder.

    Raises:
        UserError: the path is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link, so nothing is written there. Remove the link.")


def save_file(path: Path, content: bytes | str) -> None:
    """Write a file as `write_atomic` does, and explain errors to the user.

    Text is written as UTF-8. Undecodable bytes of file names become escapes that JSON reads back.

    Raises:
        UserError: the folder does not exist or cannot be written, or the disk is full.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error
