"""What a file packs, written once, safely, into the user's cache folder.

Only pictures and tables are written, each under a path that stays below the folder. What a file may
grow to is limited.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from hundredfold.data.counted import Budget, Counted
from hundredfold.pictures.prepare import is_picture
from hundredfold.pictures.walk import HIDDEN, Passed, as_text, has_suffix, is_hidden, why_passed
from hundredfold.support.errors import UserError, first_line, shortened
from hundredfold.support.files import alone, fingerprint, stamp

VERSION = 3
"""Of how what is unpacked lies in the cache."""
MOST_GROWTH = 50
"""Times its own size that a file may unpack to, beyond FREE_BYTES: pictures hardly shrink."""
FREE_BYTES = 2**30
CHUNK = 2**20
TABLES = (".csv", ".tsv", ".parquet")
"""What the names of tables end with."""
FILES, NOTES = "files", "notes.json"


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked, and what was not."""

    folder: Path
    passed: tuple[Passed, ...]
    remarks: tuple[str, ...]
    """Sentences about what was decided for the user."""


@dataclass
class Target:
    """A folder into which a file is unpacked."""

    folder: Path
    budget: Budget
    passed: list[Passed] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def pass_over(self, name: str, reason: str) -> None:
        """Take note of a member that is not written."""
        self.passed.append(Passed(as_text(name), reason))

    def path(self, name: str) -> Path:
        """Return where a member is to be.

        Raises:
            UserError: its path leads outside.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
            raise UserError(
                f"{self.budget.source} has a path that leads outside, {shortened(name)!r}: "
                "it is not unpacked."
            )
        return self.folder.joinpath(*parts)

    def place(self, name: str, *, folder: bool = False) -> Path | None:
        """Return where to write a member, with the folder for it; None where it is passed over.

        A folder is made, and one for whatever is passed over, so that no class is lost unseen.

        Raises:
            UserError, OSError: its path leads outside, or a folder cannot be made.
        """
        path = self.path(name)
        if any(is_hidden(part) for part in path.relative_to(self.folder).parts):
            self.pass_over(name, HIDDEN)
            return None
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        if folder or path == self.folder:
            return None
        known = is_picture(path) or path.suffix.lower() in TABLES
        if known or not has_suffix(path.name):  # the content of the latter tells
            return path
        self.pass_over(name, why_passed(name))
        return None


def write(path: Path, file: IO[bytes] | Counted) -> None:
    """Write all that can be read; of two members of one name the later counts, as for tar."""
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        while chunk := file.read(CHUNK):
            out.write(chunk)


def unpack_once(path: Path, folder: Path, fill: Callable[[Path, Target], None]) -> Unpacked:
    """Unpack a file below `folder`, unless it is there already, each file as it was written.

    Args:
        path: the file.
        folder: where unpacked files are kept.
        fill: writes what the file holds.

    Raises:
        UserError: it is damaged, a path in it leads outside, it unpacks to too much, or the disk
            is full.
    """
    place = fingerprint(str(path.resolve())).hex()
    state = fingerprint(VERSION, stamp(path)).hex()
    target = folder / f"{place[:16]}-{state[:16]}"
    found = _recall(target)
    if found is None:
        with alone(folder.with_suffix(".lock")):
            found = _recall(target) or _unpack(path, target, fill)  # another may have been faster
    return found


def _recall(folder: Path) -> Unpacked | None:
    """Return what was unpacked, or None where it is not there, or not as it was written."""
    try:
        state, _, notes = (folder / NOTES).read_text().partition("\n")
        if state != _state(folder / FILES, notes):
            return None
    except (OSError, ValueError):
        return None
    known = json.loads(notes)
    passed = tuple(Passed(*each) for each in known["passed"])
    return Unpacked(folder / FILES, passed, tuple(known["remarks"]))


def _state(folder: Path, notes: str) -> str:
    """Return what changes when the files in a folder do, or the notes about them."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for above, folders, files in os.walk(folder):
        inside = os.path.relpath(above, folder)
        found += [(inside, name, ()) for name in folders]
        found += [(inside, name, stamp(f"{above}/{name}")) for name in files]
    return fingerprint(notes, sorted(found)).hex()


def _unpack(path: Path, folder: Path, fill: Callable[[Path, Target], None]) -> Unpacked:
    """Unpack a file into a folder that gets its name when it is whole.

    What was unpacked of the same path before is removed.
    """
    part = folder.with_suffix(".part")
    place = folder.name.partition("-")[0]
    for left in (*folder.parent.glob("*.part"), *folder.parent.glob(f"{place}-*")):
        shutil.rmtree(left, ignore_errors=True)  # the former are of processes that were killed
    budget = Budget(path, MOST_GROWTH * path.stat().st_size + FREE_BYTES)
    target = Target(part / FILES, budget)
    try:
        target.folder.mkdir(parents=True)
        fill(path, target)
        notes = json.dumps({"passed": target.passed, "remarks": target.remarks})
        (part / NOTES).write_text(f"{_state(target.folder, notes)}\n{notes}")
        part.replace(folder)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"Cannot unpack {path}: {error.strerror or error}.") from error
    except Exception as error:  # files can be damaged in a score of ways
        raise UserError(f"{path} is cut short or damaged: {first_line(error)}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Unpacked(folder / FILES, tuple(target.passed), tuple(target.remarks))
