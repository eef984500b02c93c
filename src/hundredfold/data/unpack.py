"""Unpack a file once, safely, into the user's cache folder.

Only pictures and tables are written, and every path stays below the target folder. The total size
of the unpacked files is limited.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from hundredfold.data.decompress import LimitedStream, SizeLimit
from hundredfold.pictures.load import is_picture
from hundredfold.pictures.walk import HIDDEN, Skipped, as_text, has_suffix, is_hidden, why_skipped
from hundredfold.support.errors import DamagedFileError, UserError, first_line, shortened
from hundredfold.support.files import cache_folder, file_stamp, fingerprint, process_lock

VERSION = 7
"""Version of the layout of unpacked files in the cache."""
MAX_GROWTH = 50
"""Number of times its own size that a file may unpack to, beyond FREE_BYTES. Pictures are already
compressed, so an honest archive stays far below this."""
FREE_BYTES = 2**30
CHUNK = 2**20
TABLES = (".csv", ".tsv", ".parquet")
"""File name suffixes of tables."""
UNPACKED_TABLE = "table.csv"
"""Name of the table that is written for pictures whose labels were not in file names."""
FILES, NOTES = "files", "notes.json"


def unpacked_folder() -> Path:
    """Return the folder of everything that is unpacked."""
    return cache_folder() / "unpacked"


@dataclass(frozen=True)
class UnpackedFolder:
    """The folder of unpacked files, and the members that were skipped."""

    folder: Path
    skipped: tuple[Skipped, ...]
    remarks: tuple[str, ...]
    """Sentences for the user about guesses that were made."""
    left_out: tuple[str, ...] = ()
    """Sentences, without full stops, about pictures that are left out."""


@dataclass
class Destination:
    """The folder into which a file is being unpacked."""

    folder: Path
    limit: SizeLimit
    skipped: list[Skipped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """Record a member that is not written."""
        self.skipped.append(Skipped(as_text(name), reason))

    def path_of(self, name: str) -> Path:
        """Return the path of a member in the folder.

        Raises:
            UserError: the path leads outside of the folder.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
            raise UserError(
                f"{self.limit.source} contains a path that leads outside, {shortened(name)!r}, so "
                "it is not unpacked."
            )
        return self.folder.joinpath(*parts)

    def prepare(self, name: str, *, folder: bool = False) -> Path | None:
        """Return the path to write a member to and create its folder, or None to skip the member.

        The folder of a skipped file is created too, so that a class without pictures is noticed.

        Raises:
            UserError, OSError: the path leads outside, or a folder cannot be created.
        """
        path = self.path_of(name)
        if any(is_hidden(part) for part in path.relative_to(self.folder).parts):
            self.skip(name, HIDDEN)
            return None
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        if folder or path == self.folder:
            return None
        known = is_picture(path) or path.suffix.lower() in TABLES
        if known or not has_suffix(path.name):  # without a suffix, the content decides later
            return path
        self.skip(name, why_skipped(name))
        return None


def write_member(path: Path, file: IO[bytes] | LimitedStream) -> None:
    """Write a member to a file. If two members have the same name, the later one counts."""
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        while chunk := file.read(CHUNK):
            out.write(chunk)


def unpack_once(
    path: Path, folder: Path, unpack: Callable[[Path, Destination], None], about: object = None
) -> UnpackedFolder:
    """Unpack a file below `folder`, unless unchanged files from an earlier call are there.

    Args:
        path: the file.
        folder: folder for unpacked files.
        unpack: function that writes the members of the file.
        about: what else the unpacked files depend on; its `repr` must tell values apart.

    Raises:
        UserError: the file is damaged, contains a path that leads outside, or unpacks to too many
            bytes, or the disk is full.
    """
    path_key = fingerprint(str(path.resolve())).hex()
    state_key = fingerprint(VERSION, file_stamp(path), about).hex()
    target = folder / f"{path_key[:16]}-{state_key[:16]}"
    unpacked = _find_unpacked(target)
    if unpacked is None:
        with process_lock(folder.with_suffix(".lock")):  # another process may have been faster
            unpacked = _find_unpacked(target) or _unpack(path, target, unpack)
    return unpacked


def _find_unpacked(folder: Path) -> UnpackedFolder | None:
    """Return the files unpacked earlier, or None if they are missing or have changed."""
    try:
        state, _, text = (folder / NOTES).read_text().partition("\n")
        if state != _folder_state(folder / FILES, text):
            return None
    except (OSError, ValueError):
        return None
    notes = json.loads(text)
    skipped = tuple(Skipped(*item) for item in notes["skipped"])
    remarks, left_out = tuple(notes["remarks"]), tuple(notes["left_out"])
    return UnpackedFolder(folder / FILES, skipped, remarks, left_out)


def _folder_state(folder: Path, notes: str) -> str:
    """Return a fingerprint of the files in a folder and the notes about them."""
    entries: list[tuple[str, str, tuple[int, ...]]] = []
    for parent, folders, files in os.walk(folder):
        inside = os.path.relpath(parent, folder)
        entries += [(inside, name, ()) for name in folders]
        entries += [(inside, name, file_stamp(f"{parent}/{name}")) for name in files]
    return fingerprint(notes, sorted(entries)).hex()


def _unpack(
    path: Path, folder: Path, unpack: Callable[[Path, Destination], None]
) -> UnpackedFolder:
    """Unpack a file into a temporary folder, which is renamed once it is complete.

    Older files unpacked from the same path are removed.
    """
    part = folder.with_suffix(".part")
    path_key = folder.name.partition("-")[0]
    for old in (*folder.parent.glob("*.part"), *folder.parent.glob(f"{path_key}-*")):
        shutil.rmtree(old, ignore_errors=True)  # .part folders are left by killed processes
    limit = SizeLimit(path, MAX_GROWTH * path.stat().st_size + FREE_BYTES)
    destination = Destination(part / FILES, limit)
    try:
        destination.folder.mkdir(parents=True)
        unpack(path, destination)
        notes = json.dumps(
            {
                "skipped": destination.skipped,
                "remarks": destination.remarks,
                "left_out": destination.left_out,
            }
        )
        (part / NOTES).write_text(f"{_folder_state(destination.folder, notes)}\n{notes}")
        part.replace(folder)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"Cannot unpack {path}: {error.strerror or error}.") from error
    except Exception as error:  # damaged files raise many kinds of errors
        raise DamagedFileError(f"{path} is cut short or damaged: {first_line(error)}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return UnpackedFolder(
        folder / FILES,
        tuple(destination.skipped),
        tuple(destination.remarks),
        tuple(destination.left_out),
    )
