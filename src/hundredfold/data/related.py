"""Find pictures that must stay on one side of a split: copies, near duplicates and groups."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from hundredfold.data.collection import PictureCollection
from hundredfold.data.decode import FileInfo
from hundredfold.data.near import near_duplicates
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import first_few

MAX_PICTURES = 20_000
"""Most pictures among which near duplicates are searched for: each is compared with every other."""
SMALL = 32
"""Shorter side in pixels up to which near duplicates are not searched for."""
LARGE, SEVERAL = 0.5, 10
"""Share of a class, and number of its pictures, above which near duplicates are not kept together:
they are then a chain of similar pictures rather than one shot."""

Pairs = Iterable[tuple[int, int]]


@dataclass(frozen=True)
class RelatedPictures:
    """The pictures that belong together."""

    groups: Mapping[int, int]
    """The group of each picture: the lowest row of a picture that belongs together with it."""
    remarks: tuple[str, ...] = ()
    """Sentences for the user about near duplicates that are not kept together."""

    @property
    def any_related(self) -> bool:
        """Whether any two pictures belong together."""
        return len(set(self.groups.values())) < len(self.groups)


def find_related(collection: PictureCollection, rows: Sequence[int]) -> RelatedPictures:
    """Return which pictures, of the given rows of a collection, belong together.

    These are copies, near duplicates, and pictures that a table puts into one group.
    """
    entries = [collection.entries[row] for row in rows]
    copies = equal_places([collection.infos[row].digest for row in rows])
    certain = [*copies, *equal_places([entry.group for entry in entries])]
    near: list[tuple[int, int]] = []
    remarks = []
    places = [i for i, row in enumerate(rows) if _is_photo(collection.infos[row])]
    if len(places) > MAX_PICTURES:
        remarks.append(
            f"There are more than {MAX_PICTURES:,} pictures, so near duplicates are not searched "
            "for. They may be on both sides of a split. Exact copies are still kept together."
        )
    else:
        photos = torch.tensor([rows[i] for i in places], dtype=torch.int64)
        near = [(places[i], places[j]) for i, j in near_duplicates(collection.store, photos)]
    lowest, chained = join([entry.label for entry in entries], certain, near)
    if chained:
        remarks.append(
            "Near duplicates form chains through more than half of the pictures of "
            f"{first_few(in_natural_order(chained))}. In these classes, near duplicates may be on "
            "both sides of a split. Exact copies and pictures of one group still stay together. To "
            "say which pictures belong together, use a table with a column `group`."
        )
    groups = {row: rows[place] for row, place in zip(rows, lowest, strict=True)}
    return RelatedPictures(groups, tuple(remarks))


def _is_photo(info: FileInfo) -> bool:
    """Return whether a picture has enough pixels to tell a near duplicate from a similar one."""
    return min(info.width, info.height) > SMALL


def join(labels: Sequence[str], certain: Pairs, near: Pairs) -> tuple[list[int], set[str]]:
    """Return the lowest picture that each is joined with, and the classes with chains.

    Args:
        labels: class of each picture.
        certain: pairs of pictures that must be together.
        near: pairs of near duplicates. They are not used where they join more than SEVERAL
            pictures, and more than a share LARGE, of a class; that class has a chain then.
    """
    certain, near = list(certain), list(near)
    sure, joined = (connected(len(labels), pairs) for pairs in (certain, [*certain, *near]))
    sizes = Counter(labels)
    inside = Counter(zip(joined, labels, strict=True))
    large = {
        lowest: label
        for (lowest, label), count in inside.items()
        if count > max(SEVERAL, LARGE * sizes[label])
    }
    parts: dict[int, set[int]] = defaultdict(set)
    for lowest, part in zip(joined, sure, strict=True):
        parts[lowest].add(part)
    chains = {lowest for lowest in large if len(parts[lowest]) > 1}
    near = [pair for pair in near if joined[pair[0]] not in chains]
    return connected(len(labels), [*certain, *near]), {large[lowest] for lowest in chains}


def connected(count: int, pairs: Pairs) -> list[int]:
    """Return, for each of the numbers 0..count-1, the lowest one that pairs connect it with."""
    above = list(range(count))

    def lowest(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for pair in pairs:
        first, second = sorted(map(lowest, pair))
        above[second] = first
    return [lowest(i) for i in range(count)]


def equal_places(values: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return pairs that connect the places of equal values; empty values are not connected."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(value, i), i) for i, value in enumerate(values) if value]
