"""A person's own pictures, as they are read from a folder, an archive or a table."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hundredfold.data.archive import ARCHIVES, is_archive, unpack
from hundredfold.data.decode import Facts
from hundredfold.data.kept import read_pictures
from hundredfold.data.listing import Entry, Listing, list_folder
from hundredfold.data.table import list_table
from hundredfold.data.unpacking import TABLES
from hundredfold.pictures.pixels import open_picture
from hundredfold.pictures.walk import Passed, in_natural_order, is_hidden, natural
from hundredfold.support.errors import UserError
from hundredfold.support.files import cache_folder
from hundredfold.support.text import plural

SIZES = (32, 48, 64, 96, 128)
"""Sides that are chosen from, in pixels: the largest that the median picture fills."""
LOOKED_AT = 1000
"""Pictures, at most, whose headers decide the size."""


@dataclass(frozen=True)
class Source:
    """Pictures of a person's own, read but not yet a dataset."""

    path: Path
    """As the user named it, resolved."""
    listing: Listing
    facts: tuple[Facts, ...]
    """Of each entry."""
    store: torch.Tensor
    """(N, 3, S, S) uint8, a row for each entry."""
    mapped: Path | None
    """The file that the store is mapped from; None where it is in memory."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The pictures."""
        return self.listing.entries

    @property
    def passed(self) -> tuple[Passed, ...]:
        """The files that were passed over."""
        return self.listing.passed

    @property
    def bad(self) -> list[Passed]:
        """The pictures that cannot be used, and why."""
        both = zip(self.entries, self.facts, strict=True)
        return [Passed(entry.name, fact.problem) for entry, fact in both if fact.problem]

    @property
    def lost(self) -> list[Passed]:
        """The classes without a picture that can be used, and why."""
        both = list(zip(self.entries, self.facts, strict=True))
        usable = {entry.label for entry, fact in both if not fact.problem}
        bad = Counter(entry.label for entry, _ in both if entry.label not in usable)
        damaged = [
            Passed(name, f"{plural(bad[name], 'picture')}, damaged or missing")
            for name in in_natural_order(bad)
        ]
        return sorted([*self.listing.lost, *damaged], key=lambda each: natural(each.name))


def read_source(path: Path, size: int = 0) -> Source:
    """Read a person's own pictures.

    Args:
        path: a folder (see `list_folder`), a table (see `list_table`), or an archive of either.
        size: side in pixels; 0 to choose by the pictures.

    Raises:
        UserError: nothing there, or its shape says no class for some picture.
    """
    listing = list_pictures(path)
    if size == 0:
        size = choose_size([entry.path for entry in listing.entries])
    reading = read_pictures(listing.entries, size, cache_folder() / "pictures")
    return Source(path.resolve(), listing, reading.facts, reading.store, reading.mapped)


def list_pictures(path: Path) -> Listing:
    """Return what a folder, an archive or a table names.

    Raises:
        UserError: it is none of them, or a table in an archive names a file outside of it.
    """
    if path.is_dir():
        return list_folder(path)
    known = is_archive(path) or path.suffix.lower() in TABLES
    if not known or not path.is_file():  # a device or a pipe may have no end
        raise UserError(
            f"{path} is no folder, no archive ({', '.join(ARCHIVES)}) and no table "
            f"({', '.join(TABLES)})."
        )
    return list_archive(path) if is_archive(path) else list_table(path)


def list_archive(path: Path) -> Listing:
    """Return what an archive names, by its one table, if it has one, or by its folders.

    Raises:
        UserError: as `unpack`, `list_table` and `list_folder` do.
    """
    unpacked = unpack(path, cache_folder() / "unpacked")
    table = _only_table(unpacked.folder)
    if table is None:
        listing = list_folder(unpacked.folder, str(path), unpacked.passed)
    else:
        listing = list_table(table, f"{path}: {table.name}", unpacked.folder)
        listing = replace(listing, passed=(*unpacked.passed, *listing.passed))
    return replace(listing, remarks=(*unpacked.remarks, *listing.remarks))


def _only_table(folder: Path) -> Path | None:
    """Return the one table of a folder, or of the only folder in it, and so on; None for none."""
    while True:
        entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
        tables = [entry for entry in entries if entry.suffix.lower() in TABLES and entry.is_file()]
        if tables or len(entries) != 1 or not entries[0].is_dir():
            return tables[0] if len(tables) == 1 else None
        folder = entries[0]


def choose_size(paths: Sequence[Path]) -> int:
    """Return the largest of SIZES that half of the pictures fill, by their shorter side."""
    step = max(1, len(paths) // LOOKED_AT)
    sides = []
    for path in paths[::step]:
        try:
            with open_picture(path) as image:
                sides.append(min(image.size))
        except Exception:  # noqa: S112  # it is named when it is read
            continue
    median = statistics.median(sides) if sides else 0
    return max((size for size in SIZES if size <= median), default=SIZES[0])
