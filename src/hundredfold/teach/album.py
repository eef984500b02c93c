"""A folder with a subfolder of pictures for each class, and changes to it that can be undone.

Every change is a list of files and folders that are renamed. What is deleted is moved into a hidden
folder, which is emptied when the album is opened again.
"""

import hashlib
import io
import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hundredfold.pictures.load import load_picture, picture_errors
from hundredfold.pictures.pixels import open_picture
from hundredfold.pictures.walk import HIDDEN, Skipped, entries_of, is_hidden, walk
from hundredfold.support.errors import UserError, first_few
from hundredfold.support.files import make_folder, save_file
from hundredfold.support.text import plural, printable
from hundredfold.teach.changes import Change, Move, rename

STATE = ".teach"
"""Hidden folder of an album: what was deleted, and what the page remembers."""
LONGEST_NAME = 60
"""Largest number of characters of the name of a class, and of those kept of a file's name."""
FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
"""Characters that some file systems do not allow in names."""
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2"}
"""Suffixes of files by Pillow's name of the format, if they are not the name in small letters."""


class Contents(NamedTuple):
    """What is in an album."""

    classes: dict[str, list[str]]
    """Names of the picture files of each class, all in natural order."""
    unused: list[Skipped]
    """Other files in the folders of the classes, without hidden ones."""


@dataclass
class Album:
    """The pictures of a folder, by class. Only one thread may use an album at a time."""

    folder: Path
    changes: list[Change] = field(default_factory=list)
    """The changes that can be undone, the last one at the end."""
    deleted: int = 0
    """Number of names that were given in the folder of deleted pictures."""

    def contents(self) -> Contents:
        """Return the classes, their pictures, and files that are not used.

        Raises:
            UserError: the folder has pictures elsewhere than in the subfolders of classes.
        """
        found = walk(self.folder)
        nested = [name for name in found.folders if "/" in name]
        misplaced = nested + [name for _, name in found.pictures if name.count("/") != 1]
        if misplaced:
            raise UserError(
                f"{self.folder} must hold one folder for each class, with the pictures directly in "
                f"it. These do not fit: {first_few(misplaced)}."
            )
        pictures: dict[str, list[str]] = {name: [] for name in found.folders}
        for _, name in found.pictures:
            label, _, file = name.partition("/")
            pictures[label].append(file)
        unused = [skip for skip in found.skipped if "/" in skip.name and skip.reason != HIDDEN]
        return Contents(pictures, unused)

    def classes(self) -> dict[str, list[str]]:
        """Return the classes of `contents`, or raise as it does."""
        return self.contents().classes

    def path(self, label: str, picture: str) -> Path:
        """Return the path of a picture of a class.

        Raises:
            UserError: the album has no such class or picture.
        """
        if picture not in self._pictures(label):
            raise UserError(f"{printable(label)} has no picture {printable(picture)}.")
        return self.folder / label / picture

    def add_class(self, name: str) -> str:
        """Create an empty class, and return its name, which may have been tidied up.

        Raises:
            UserError: the name is taken or cannot be the name of a folder.
        """
        name = self._new_name(name)
        make_folder(self.folder / name)
        move = Move(self._bin(name), self.folder / name)
        self.changes.append(Change(f"adding the class {name}", [move], makes_class=True))
        return name

    def rename_class(self, label: str, name: str) -> str:
        """Rename a class, and return its new name, which may have been tidied up.

        Raises:
            UserError: there is no such class, or the name is as `add_class` refuses it.
        """
        self._pictures(label)
        name = self._new_name(name, label)
        if name != label:
            self._do(f"renaming {label}", [Move(self.folder / label, self.folder / name)])
        return name

    def delete_class(self, label: str) -> None:
        """Delete a class with its pictures.

        Raises:
            UserError: there is no such class.
        """
        self._pictures(label)
        self._do(f"deleting {label}", [Move(self.folder / label, self._bin(label))])

    def merge(self, label: str, into: str) -> None:
        """Move all files of a class into another class, and delete the first.

        Raises:
            UserError: there are no two such classes, or a folder cannot be read.
        """
        self._pictures(label)
        self._pictures(into)
        if label == into:
            raise UserError("A class cannot be merged with itself.")
        taken = {entry.name for entry in entries_of(self.folder / into)}
        moves = []
        for entry in entries_of(self.folder / label):
            free = entry.name
            while free in taken:
                free = f"_{free}"
            taken.add(free)
            moves.append(Move(Path(entry.path), self.folder / into / free))
        moves.append(Move(self.folder / label, self._bin(label)))
        self._do(f"merging {label} into {into}", moves)

    def add_picture(self, label: str, content: bytes, name: str = "", burst: str = "") -> str:
        """Write a picture into a class, and return the name of its file.

        Args:
            label: the class.
            content: content of a picture file.
            name: what to call it; a digest of the content is added.
            burst: pictures that are added to a class one after the other with the same burst are
                undone together.

        Raises:
            UserError: there is no such class, the content is not a picture, the album has the
                picture already, or the file cannot be written.
        """
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        self._pictures(label)
        for known, pictures in self.classes().items():
            if any(digest in picture for picture in pictures):
                raise UserError(f"The picture is in {known} already.")
        load_picture(content, 32)  # a damaged file is refused here
        stem = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.")[:LONGEST_NAME]
        file = f"{stem or 'picture'}-{digest}{_suffix(content)}"
        path = self.folder / label / file
        save_file(path, content)
        burst = burst and f"{label}/{burst}"
        move, last = Move(self._bin(file), path), self.changes[-1] if self.changes else None
        if last and burst and last.burst == burst:
            last.added += 1
            last.moves.append(move)
        else:
            last = Change("", [move], burst, added=1)
            self.changes.append(last)
        last.what = f"adding {plural(last.added, 'picture')} to {label}"
        return file

    def delete_pictures(self, label: str, pictures: Sequence[str]) -> None:
        """Delete pictures of a class.

        Raises:
            UserError: there is no such class or picture.
        """
        moves = [Move(self.path(label, name), self._bin(name)) for name in dict.fromkeys(pictures)]
        if moves:
            self._do(f"deleting {plural(len(moves), 'picture')} of {label}", moves)

    def undo(self) -> None:
        """Undo the last change.

        Raises:
            UserError: there is none, or another program has changed files since. If it can be
                undone once they are changed back, the change is kept.
        """
        if not self.changes:
            raise UserError("There is nothing to undo.")
        change = self.changes[-1]
        left = [move for move in change.moves if move.after.exists() or move.after.is_symlink()]
        moves = [Move(after, before) for before, after in reversed(left)]
        if not moves:
            self.changes.pop()
            raise UserError(
                f"Another program took the files away, so this cannot be undone: {change.what}."
            )
        if change.makes_class and any(not is_hidden(path.name) for path in entries_of(moves[0][0])):
            raise UserError(
                f"{printable(moves[0].before.name)} holds files that another program put there, so "
                "adding it cannot be undone. Remove these files first, or delete the class."
            )
        rename(moves)
        self.changes.pop()

    def _pictures(self, label: str) -> list[str]:
        """Return the pictures of a class, which must exist."""
        classes = self.classes()
        if label not in classes:
            raise UserError(f"There is no class {printable(label)}.")
        return classes[label]

    def _new_name(self, name: str, instead_of: str = "") -> str:
        """Return a name for a class, after some tidying."""
        name = " ".join(unicodedata.normalize("NFC", name).split())
        if not name or len(name) > LONGEST_NAME:
            raise UserError(f"The name of a class must have 1 to {LONGEST_NAME} characters.")
        if (
            FORBIDDEN.search(name)
            or is_hidden(name)
            or name.endswith(".")
            or printable(name) != name
        ):
            raise UserError(
                f'{printable(name)} cannot be the name of a folder. Leave out < > : " / \\ | ? * '
                "and a dot at the start or the end."
            )
        others = set(self.classes()) - {instead_of}
        if twin := next((other for other in others if other.casefold() == name.casefold()), None):
            raise UserError(f"There is a class {twin} already.")
        return name

    def _bin(self, name: str) -> Path:
        """Return a new path in the folder of deleted pictures."""
        self.deleted += 1
        return self.folder / STATE / "deleted" / str(self.deleted) / name

    def _do(self, what: str, moves: list[Move]) -> None:
        rename(moves)
        self.changes.append(Change(what, moves))


def open_album(folder: Path) -> Album:
    """Return the album of a folder, which is created if it does not exist.

    What was deleted in an earlier session is gone then.

    Raises:
        UserError: the folder cannot be read or written, or has pictures elsewhere than in the
            subfolders of classes.
    """
    album = Album(make_folder(folder))
    album.classes()
    make_folder(folder / STATE)
    shutil.rmtree(folder / STATE / "deleted", ignore_errors=True)
    return album


def describe_unused(unused: Sequence[Skipped]) -> list[str]:
    """Return a sentence about the files of an album that are not used, or none."""
    if not unused:
        return []
    named = first_few(f"{name} ({reason})" for name, reason in unused)
    return [f"{plural(len(unused), 'file is', 'files are')} not used: {named}."]


def _suffix(content: bytes) -> str:
    """Return the suffix of the format of a picture file's content."""
    with picture_errors("The file"), open_picture(io.BytesIO(content)) as image:
        kind = image.format or ""
    return SUFFIXES.get(kind, f".{kind.lower()}")
