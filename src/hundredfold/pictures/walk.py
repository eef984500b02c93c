"""Find the pictures in a folder and its subfolders, for training and for prediction."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hundredfold.pictures.load import is_picture
from hundredfold.pictures.pixels import open_picture
from hundredfold.support.errors import UserError

SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "$recycle.bin"}
"""Names of entries that an operating system creates. Hidden entries start with a dot."""
HIDDEN = "hidden or a system file"
HEIC = (".heic", ".heif", ".hif")
"""Suffixes of pictures from an iPhone, which Pillow cannot read."""
HEIC_REASON = "HEIC is not supported: convert it to JPEG"
MAX_DIGITS = 1000
"""Maximum number of digits that are sorted as a number. Python converts at most 4,300 digits."""


class Skipped(NamedTuple):
    """A file, picture or class that is not used, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class FolderContents:
    """Contents of a folder in natural order. Names are paths within the folder, with slashes."""

    pictures: tuple[tuple[Path, str], ...]
    """Path and name of each picture."""
    folders: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    """All other entries."""


def natural_key(name: str) -> str:
    """Return a sort key that puts 2 before 10 and a before B.

    A number becomes its number of digits and the digits, so that a longer one is larger. Numbers
    come before text. A text takes a tenth of the memory of a tuple of numbers and texts.
    """
    parts = re.split(r"(\d+)", name.casefold())
    return "".join(_ordered(part) for part in parts if part)


def _ordered(part: str) -> str:
    if part.isdecimal() and len(part) <= MAX_DIGITS:
        digits = str(int(part))
        return f"\0{chr(len(digits))}{digits}"
    return f"\1{part}"


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return each name once, in natural order: 2 before 10 and a before B."""
    return sorted(set(names), key=lambda name: (natural_key(name), name))


def is_hidden(name: str) -> bool:
    """Return whether an entry is hidden, or was created by an operating system."""
    return name.startswith(".") or name.lower() in SYSTEM


def has_suffix(name: str) -> bool:
    """Return whether a name ends with a file type. `1.jpg?w=200` and `img.0001` do not."""
    suffix = Path(name).suffix[1:]
    return suffix.isalnum() and not suffix.isdecimal()


def why_skipped(name: str) -> str:
    """Return why a file of that name is skipped."""
    if Path(name).suffix.lower() in HEIC:
        return HEIC_REASON
    return "not a picture by its name" if has_suffix(name) else "not a picture"


def walk(root: Path) -> FolderContents:
    """Find all pictures in a folder and its subfolders, and follow links to folders.

    A file without a suffix counts as a picture if its content is one.

    Raises:
        UserError: a folder cannot be read, or a link leads back to a folder above it.
    """
    pictures: list[tuple[Path, str]] = []
    folders: list[str] = []
    skipped: list[Skipped] = []
    above: tuple[str, ...] = (os.path.realpath(root),)
    waiting = [(root, "", above)]
    while waiting:
        folder, prefix, above = waiting.pop()
        for entry in entries_of(folder):
            path, name = Path(entry.path), prefix + as_text(entry.name)
            if is_hidden(entry.name):
                skipped.append(Skipped(name, HIDDEN))
            elif _is(entry.is_dir):
                real = os.path.realpath(path)
                if real in above:
                    raise UserError(f"{path} is a link to a folder above it. Remove the link.")
                folders.append(name)
                waiting.append((path, f"{name}/", (*above, real)))
            elif not _is(entry.is_file) and os.path.exists(path):  # noqa: PTH110  # never raises
                skipped.append(Skipped(name, "not a regular file"))
            elif is_picture(path) or (not has_suffix(entry.name) and _holds_picture(path)):
                pictures.append((path, name))
            else:
                skipped.append(Skipped(name, why_skipped(name)))
    return FolderContents(
        tuple(sorted(pictures, key=lambda item: (natural_key(item[1]), item[1]))),
        tuple(in_natural_order(folders)),
        tuple(sorted(skipped, key=lambda item: (natural_key(item.name), item.name))),
    )


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from error


def _is(check: Callable[[], bool]) -> bool:
    """Return the result of a check of an entry; false for a broken link."""
    try:
        return check()
    except OSError:
        return False


def _holds_picture(path: Path) -> bool:
    """Return whether a file starts like a picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture is reported when it is read
            with open_picture(path):
                return True
    except Exception:  # Pillow raises many kinds of errors on other files
        return False


def as_text(name: str) -> str:
    """Return a file name as valid text, with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
