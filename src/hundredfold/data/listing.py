"""Which pictures a folder or a list names, and of which class: nothing is decoded here."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hundredfold.errors import UserError
from hundredfold.pictures import is_picture

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Folder names, in lower case, and the split that each stands for."""
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "$recycle.bin"}
"""Entries that an operating system leaves; hidden ones begin with a dot."""


class Entry(NamedTuple):
    """A picture that is to be read."""

    path: Path
    """Where it is."""
    name: str
    """How it is told to people: its path within the data, with slashes."""
    split: str
    """train, validation or test; empty where the data does not say."""
    label: str
    """Its class."""
    parent: str
    """Its superclass; empty where there is none."""


class Passed(NamedTuple):
    """Something that was passed over."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The pictures of a source, in a fixed order, and what was passed over."""

    entries: tuple[Entry, ...]
    passed: tuple[Passed, ...]


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts 2 before 10, and a before B."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return each name once, 2 before 10, and a before B."""
    return sorted(set(names), key=lambda name: (natural(name), name))


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return entries by file name, then by path.

    By name first, so that numbered files keep the order of their numbers, whichever class or folder
    each is in.
    """
    return tuple(
        sorted(entries, key=lambda e: (natural(e.name.rpartition("/")[2]), natural(e.name), e.name))
    )


def list_folder(root: Path, called: str = "") -> Listing:
    """List a folder: `<class>/…`, or that below train/, val/ and test/; or with superclasses.

    Where pictures lie two folders deep rather than one, the upper one is the superclass.

    Args:
        root: the folder.
        called: what errors call it; empty for its path.

    Raises:
        UserError: the folder cannot be read, a link leads back to a folder above it, or its shape
            says no class for some picture.
    """
    called = called or str(root)
    passed: list[Passed] = []
    files = []
    for path, name in _walk(root, "", (os.path.realpath(root),), passed):
        if is_picture(path):
            files.append((path, name))
        else:
            passed.append(Passed(name, "not a picture by its name"))
    if not files:
        raise UserError(f"{called} holds no pictures (jpg, png, webp, ...) in folders of classes.")
    tops = {name.split("/")[0] for _, name in files}
    splits = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    if "train" in splits.values() and not _is_class(tops, splits, [name for _, name in files]):
        outside = [name for _, name in files if name.split("/")[0] not in splits]
        passed += [Passed(name, "beside the folder train, not in it") for name in outside]
    else:
        splits = {}
    entries = [
        _entry(path, name, splits)
        for path, name in files
        if not splits or name.split("/")[0] in splits
    ]
    return Listing(in_order(_named(entries, called)), tuple(passed))


def _walk(
    folder: Path, prefix: str, above: Sequence[str], passed: list[Passed]
) -> Iterator[tuple[Path, str]]:
    """Yield the files below a folder, with their names; hidden and system ones are noted instead.

    Args:
        folder: where to look.
        prefix: what the names of its entries begin with.
        above: real paths of the folder and of those above it.
        passed: what is passed over is added to it.
    """
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from error
    for entry in found:
        path, name = Path(entry.path), prefix + _text(entry.name)
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
            passed.append(Passed(name, "hidden, or of the system"))
        elif entry.is_dir():
            real = os.path.realpath(path)
            if real in above:
                raise UserError(f"{path} is a link to a folder above it: remove it.")
            yield from _walk(path, f"{name}/", (*above, real), passed)
        else:
            yield path, name


def _is_class(tops: set[str], splits: dict[str, str], names: Sequence[str]) -> bool:
    """Return whether the only folder named as a split is a class beside others, such as trains."""
    within = [name for name in names if name.split("/")[0] in splits]
    return len(splits) == 1 < len(tops) and all(name.count("/") == 1 for name in within)


def _text(name: str) -> str:
    """Return a file's name as text, which it need not be: bytes that are none are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _entry(path: Path, name: str, splits: dict[str, str]) -> Entry:
    folders = name.split("/")[:-1]
    split = splits[folders.pop(0)] if splits else ""
    label = folders[-1] if folders else ""
    return Entry(path, name, split, label, "/".join(folders[:-1]))


def _named(entries: Sequence[Entry], called: str) -> list[Entry]:
    """Return entries whose classes have names of their own, or say what of the shape is wrong."""
    for entry in entries:
        where = f"{called}: {entry.name}"
        if not entry.label:
            raise UserError(
                f"{where} is in no class: put each class's pictures into a folder of its name."
            )
        if "/" in entry.parent:
            raise UserError(
                f"{where} is too deep: wanted is CLASS/PICTURE or SUPERCLASS/CLASS/PICTURE, "
                "or that below train, val and test."
            )
    flat = next((entry for entry in entries if not entry.parent), None)
    nested = next((entry for entry in entries if entry.parent), None)
    if flat and nested:
        raise UserError(
            f"{called} has pictures at two depths, such as {flat.name} and {nested.name}: is "
            f"{nested.parent} a class or a superclass? Give all pictures one depth."
        )
    return qualified(entries)


def qualified(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries in which a class name that two superclasses share has the superclass's too."""
    above: dict[str, set[str]] = {}
    for entry in entries:
        above.setdefault(entry.label, set()).add(entry.parent)
    return [
        entry._replace(label=f"{entry.parent}/{entry.label}")
        if len(above[entry.label]) > 1
        else entry
        for entry in entries
    ]
