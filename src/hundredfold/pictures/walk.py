"""Which files a folder holds: one walk for training and for prediction."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hundredfold.pictures.pixels import open_picture
from hundredfold.pictures.prepare import is_picture
from hundredfold.support.errors import UserError

SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "$recycle.bin"}
"""Entries that an operating system leaves; hidden ones begin with a dot."""
HIDDEN = "hidden, or of the system"
HEIC = (".heic", ".heif", ".hif")
"""What the names of an iPhone's pictures end with, which Pillow cannot read."""
HEIC_REASON = "HEIC is not read: convert it to JPEG"
MOST_DIGITS = 1000
"""Digits of a number by which names are sorted: Python reads no more than 4,300."""


class Passed(NamedTuple):
    """Something that was passed over."""

    name: str
    reason: str


@dataclass(frozen=True)
class Walked:
    """What a folder holds, in natural order; names are paths within it, with slashes."""

    pictures: tuple[tuple[Path, str], ...]
    """Where each is, and its name."""
    folders: tuple[str, ...]
    passed: tuple[Passed, ...]
    """All other entries."""


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts 2 before 10, and a before B."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(
        (0, int(part)) if part.isdecimal() and len(part) <= MOST_DIGITS else (1, part)
        for part in parts
        if part
    )


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return each name once, 2 before 10, and a before B."""
    return sorted(set(names), key=lambda name: (natural(name), name))


def is_hidden(name: str) -> bool:
    """Return whether an entry of that name is hidden, or left by an operating system."""
    return name.startswith(".") or name.lower() in SYSTEM


def has_suffix(name: str) -> bool:
    """Return whether a name ends with what says the kind of file: not that of `1.jpg?w=200`."""
    suffix = Path(name).suffix[1:]
    return suffix.isalnum() and not suffix.isdecimal()


def why_passed(name: str) -> str:
    """Return why a file that is no picture is passed over, by its name."""
    if Path(name).suffix.lower() in HEIC:
        return HEIC_REASON
    return "not a picture by its name" if has_suffix(name) else "not a picture"


def walk(root: Path) -> Walked:
    """Find all pictures in a folder and in those within it, links to folders included.

    A file whose name has no suffix is a picture where its content is one.

    Raises:
        UserError: a folder cannot be read, or a link leads back to a folder above it.
    """
    pictures: list[tuple[Path, str]] = []
    folders: list[str] = []
    passed: list[Passed] = []
    above: tuple[str, ...] = (os.path.realpath(root),)
    waiting = [(root, "", above)]
    while waiting:
        folder, prefix, above = waiting.pop()
        for entry in _entries(folder):
            path, name = Path(entry.path), prefix + as_text(entry.name)
            if is_hidden(entry.name):
                passed.append(Passed(name, HIDDEN))
            elif _is(entry.is_dir):
                real = os.path.realpath(path)
                if real in above:
                    raise UserError(f"{path} is a link to a folder above it: remove it.")
                folders.append(name)
                waiting.append((path, f"{name}/", (*above, real)))
            elif not _is(entry.is_file) and os.path.exists(path):  # noqa: PTH110  # never raises
                passed.append(Passed(name, "not a regular file"))
            elif is_picture(path) or (not has_suffix(entry.name) and _holds_picture(path)):
                pictures.append((path, name))
            else:
                passed.append(Passed(name, why_passed(name)))
    return Walked(
        tuple(sorted(pictures, key=lambda found: (natural(found[1]), found[1]))),
        tuple(in_natural_order(folders)),
        tuple(sorted(passed, key=lambda found: (natural(found.name), found.name))),
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from error


def _is(kind: Callable[[], bool]) -> bool:
    """Return whether an entry is of a kind; a link that leads nowhere is of none."""
    try:
        return kind()
    except OSError:
        return False


def _holds_picture(path: Path) -> bool:
    """Return whether a file's content begins as a picture's does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size: what is too large is named when it is read
            with open_picture(path):
                return True
    except Exception:  # Pillow raises a score of kinds on what is no picture
        return False


def as_text(name: str) -> str:
    """Return a file's name as text, which it need not be: bytes that are none are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
