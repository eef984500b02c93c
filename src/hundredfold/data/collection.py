"""Read a collection of your own pictures from a folder, an archive, or a table."""

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hundredfold.data.archive import ARCHIVES, is_archive, unpack_archive
from hundredfold.data.decode import FileInfo
from hundredfold.data.encoded import EncodedPictures
from hundredfold.data.listing import Entry, Listing, list_folder
from hundredfold.data.pixel_cache import read_pictures
from hundredfold.data.shards import describe_unused_shards, find_shards, list_shards
from hundredfold.data.table import list_table, lists_pictures
from hundredfold.data.unpack import TABLES, unpacked_folder
from hundredfold.pictures.pixels import Fit, open_picture
from hundredfold.pictures.walk import Skipped, in_natural_order, is_hidden, natural_key, walk
from hundredfold.support.errors import UserError
from hundredfold.support.files import cache_folder
from hundredfold.support.text import plural

SIZES = (32, 48, 64, 96, 128)
"""Side lengths in pixels to choose from: the largest that the median picture fills is taken."""
MAX_SAMPLED = 1000
"""Maximum number of pictures whose headers are read to choose the size."""


@dataclass(frozen=True)
class PictureCollection:
    """Pictures that were read, but not yet divided into splits."""

    path: Path
    """The path that the user passed, resolved."""
    listing: Listing
    infos: tuple[FileInfo, ...]
    """Facts about the file of each entry."""
    store: torch.Tensor | EncodedPictures
    """(N, 3, S, S) uint8, one row for each entry."""
    fit: Fit
    """How a picture became a square."""
    where: str
    """Where the pixels are, for people."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The pictures."""
        return self.listing.entries

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The files that are no pictures of the collection."""
        return self.listing.skipped

    @property
    def unusable(self) -> list[Skipped]:
        """The pictures that cannot be used, with the reasons."""
        pairs = zip(self.entries, self.infos, strict=True)
        return [Skipped(entry.name, info.problem) for entry, info in pairs if info.problem]

    @property
    def empty_classes(self) -> list[Skipped]:
        """The classes without a usable picture, with the reasons."""
        pairs = list(zip(self.entries, self.infos, strict=True))
        usable = {entry.label for entry, info in pairs if not info.problem}
        counts = Counter(entry.label for entry, _ in pairs if entry.label not in usable)
        damaged = [
            Skipped(name, f"{plural(counts[name], 'picture')}, damaged or missing")
            for name in in_natural_order(counts)
        ]
        both = [*self.listing.empty_classes, *damaged]
        return sorted(both, key=lambda item: natural_key(item.name))


def read_collection(
    path: Path, size: int = 0, fit: Fit = "crop", cache: str = ""
) -> PictureCollection:
    """Read your own pictures.

    Args:
        path: a folder (see `list_folder`), a table (see `list_table`), an archive of either, or
            shards (see `find_shards`).
        size: side length in pixels; 0 to choose it by the pictures.
        fit: how a picture that is not square becomes one.
        cache: most disk space for decoded pictures, as `Config.cache`.

    Raises:
        UserError: there are no pictures, or the class of a picture is not clear.
    """
    listing = list_pictures(path)
    if size == 0:
        size = choose_size([entry.path for entry in listing.entries])
    decoded = read_pictures(listing.entries, size, fit, cache_folder() / "pictures", cache)
    return PictureCollection(
        path.resolve(), listing, decoded.infos, decoded.store, fit, decoded.where
    )


def list_pictures(path: Path) -> Listing:
    """List the pictures of a folder, an archive, a table, or shards.

    Raises:
        UserError: the path is none of them, or a table in an archive names a file outside of it.
    """
    contents = walk(path) if path.is_dir() else None
    if shards := find_shards(path, contents):
        return list_shards(path, shards)
    if contents:
        listing = list_folder(path, contents=contents)
        unused = describe_unused_shards(path, contents)
        return replace(listing, remarks=(*listing.remarks, unused)) if unused else listing
    known = is_archive(path) or path.suffix.lower() in TABLES
    if not known or not path.is_file():  # a device or a pipe may have no end
        raise UserError(
            f"{path} is not a folder, an archive ({', '.join(ARCHIVES)}) or a table "
            f"({', '.join(TABLES)})."
        )
    return list_archive(path) if is_archive(path) else list_table(path)


def list_archive(path: Path) -> Listing:
    """List the pictures of an archive by its only table if it has one, else by its folders.

    Raises:
        UserError: as `unpack_archive`, `list_table` and `list_folder` do.
    """
    unpacked = unpack_archive(path, unpacked_folder())
    table = _only_table(unpacked.folder)
    if table and (lists_pictures(table) or not _has_classes(unpacked.folder)):
        listing = list_table(table, f"{path}: {table.name}", unpacked.folder)
        listing = replace(listing, skipped=(*unpacked.skipped, *listing.skipped))
        remarks = _describe_unlisted(path, table, listing, unpacked.folder)
    else:
        listing = list_folder(unpacked.folder, str(path), unpacked.skipped)
        remarks = []
    return replace(listing, remarks=(*unpacked.remarks, *remarks, *listing.remarks))


def _has_classes(folder: Path) -> bool:
    """Return whether a folder has pictures in the folders of at least two classes."""
    try:
        return len({entry.label for entry in list_folder(folder).entries}) > 1
    except UserError:
        return False


def _describe_unlisted(path: Path, table: Path, listing: Listing, folder: Path) -> list[str]:
    """Return a sentence about the pictures of an archive that its table does not list, or none."""
    listed = {os.path.normpath(entry.file) for entry in listing.entries}
    others = sum(str(picture) not in listed for picture, _ in walk(folder).pictures)
    if not others:
        return []
    verb = "is" if others == 1 else "are"
    return [
        f"{plural(others, 'picture')} in {path} {verb} not used, because {table.name}, the only "
        "table there, does not list them."
    ]


def _only_table(folder: Path) -> Path | None:
    """Return the only table in a folder, or in its only subfolder, and so on; None if none."""
    while True:
        entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
        tables = [entry for entry in entries if entry.suffix.lower() in TABLES and entry.is_file()]
        if tables or len(entries) != 1 or not entries[0].is_dir():
            return tables[0] if len(tables) == 1 else None
        folder = entries[0]


def choose_size(paths: Sequence[Path]) -> int:
    """Return the largest of SIZES that the shorter side of the median picture fills."""
    sides = [min(shape) for shape in _shapes(paths)]
    median = statistics.median(sides) if sides else 0
    return max((size for size in SIZES if size <= median), default=SIZES[0])


def median_ratio(paths: Sequence[Path]) -> float:
    """Return the median ratio of the longer to the shorter side; 1 if no picture can be read."""
    ratios = [max(shape) / min(shape) for shape in _shapes(paths)]
    return statistics.median(ratios) if ratios else 1.0


def _shapes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Return width and height of up to MAX_SAMPLED pictures that can be read."""
    step = max(1, len(paths) // MAX_SAMPLED)
    shapes = []
    for path in paths[::step]:
        try:
            with open_picture(path) as image:
                shapes.append(image.size)
        except Exception:  # noqa: S112  # the error is reported when the picture is read
            continue
    return shapes
