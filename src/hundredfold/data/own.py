"""A person's own pictures: from a folder, an archive or a table to a dataset."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hundredfold.data.archive import ARCHIVES, is_archive, unpack
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.kept import read_pictures
from hundredfold.data.listing import Entry, Listing, Passed, in_natural_order, list_folder
from hundredfold.data.reading import Facts
from hundredfold.data.table import SUFFIXES, list_table
from hundredfold.errors import UserError
from hundredfold.files import cache_folder
from hundredfold.pixels import open_picture

SIZES = (32, 48, 64, 96, 128)
"""Sides that are chosen from, in pixels: the largest that the median picture fills."""
LOOKED_AT = 1000
"""Pictures, at most, whose headers decide the size."""
TEST_SHARE = 0.2
"""Of the pictures of a source that names no test split."""
NAMED = 5
"""Files, at most, that a sentence names."""


@dataclass(frozen=True)
class Source:
    """Pictures of a person's own, read but not yet a dataset."""

    path: Path
    """As the user named it, resolved."""
    entries: tuple[Entry, ...]
    facts: tuple[Facts, ...]
    """Of each entry."""
    passed: tuple[Passed, ...]
    store: torch.Tensor
    """(N, 3, S, S) uint8, a row for each entry."""
    mapped: Path | None
    """The file that the store is mapped from; None where it is in memory."""

    @property
    def bad(self) -> list[Passed]:
        """The pictures that cannot be used, and why."""
        both = zip(self.entries, self.facts, strict=True)
        return [Passed(entry.name, fact.problem) for entry, fact in both if fact.problem]


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
    return Source(
        path.resolve(),
        listing.entries,
        reading.facts,
        listing.passed,
        reading.store,
        reading.mapped,
    )


def list_pictures(path: Path) -> Listing:
    """Return what a folder, an archive or a table names.

    Raises:
        UserError: it is none of them, or a table in an archive names a file outside of it.
    """
    if path.is_dir():
        return list_folder(path)
    if path.suffix.lower() in SUFFIXES:
        return list_table(path)
    if not is_archive(path):
        raise UserError(
            f"{path} is no folder, no archive ({', '.join(ARCHIVES)}) and no table "
            f"({', '.join(SUFFIXES)})."
        )
    folder = unpack(path, cache_folder() / "unpacked")
    tables = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    if len(tables) != 1:
        return list_folder(folder, str(path))
    listing = list_table(tables[0])
    for entry in listing.entries:
        if not entry.path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: its table names a file outside of it, {entry.name!r}.")
    return listing


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


def load_own(
    path: Path, tell: Callable[[str], None], *, size: int = 0, strict: bool = False
) -> Dataset:
    """Load a person's own pictures as a dataset.

    Classes are known by name, in natural order. Without a test split of its own, a source's
    validation split is the test; without that too, a fifth of each class is.

    Args:
        path: as in `read_source`.
        tell: takes a sentence for the user where something was decided for them.
        size: side in pixels; 0 to choose by the pictures.
        strict: refuse what would otherwise be left out.

    Raises:
        UserError: nothing there, nothing to learn from, or `strict` and something is wrong.
    """
    source = read_source(path, size)
    if source.bad:
        sentence = f"{_count(len(source.bad), 'picture')} of {path} cannot be used: " + _some(
            f"{name} ({reason})" for name, reason in source.bad
        )
        if strict:
            raise UserError(f"{sentence}. Mend or remove them, or leave out --strict.")
        tell(f"{sentence}. Left out.")
    return assemble(source, tell, strict=strict)


def assemble(source: Source, tell: Callable[[str], None], *, strict: bool = False) -> Dataset:
    """Return the dataset of pictures that were read.

    Raises:
        UserError: there are not two classes, or no test picture is left, or `strict` and a split
            has classes that the training pictures lack.
    """
    usable = [i for i, fact in enumerate(source.facts) if not fact.problem]
    rows = split_rows(source, usable, tell)
    entries = source.entries
    names = in_natural_order(entries[i].label for i in rows["train"])
    if len(names) < 2:
        raise UserError(
            f"{source.path} has {_count(len(names), 'class', 'classes')} to learn: there must be "
            "two at least, each in a folder of its name."
        )
    index = {name: i for i, name in enumerate(names)}
    for split, chosen in rows.items():
        unknown = Counter(entries[i].label for i in chosen if entries[i].label not in index)
        if unknown:
            sentence = (
                f"The {split} pictures have classes that the training pictures lack: "
                + _some(f"{name} ({count})" for name, count in unknown.items())
            )
            if strict:
                raise UserError(f"{sentence}.")
            tell(f"{sentence}. Left out.")
            rows[split] = [i for i in chosen if entries[i].label in index]
    if not rows["test"]:
        raise UserError(
            f"{source.path} leaves no picture to test on: some class needs two pictures at least."
        )
    above = {entries[i].label: entries[i].parent for i in rows["train"]}
    supers = in_natural_order(above.values()) if any(above.values()) else []
    splits = {name: _split(source, chosen, index) for name, chosen in rows.items() if chosen}
    dataset = Dataset(
        source=str(source.path),
        train=splits["train"],
        test=splits["test"],
        classes=tuple(names),
        superclasses=tuple(supers),
        parents=tuple(supers.index(above[name]) for name in names) if supers else (),
        validation=splits.get("validation"),
    )
    tell(describe(dataset, source))
    return dataset


def split_rows(
    source: Source, usable: Sequence[int], tell: Callable[[str], None]
) -> dict[str, list[int]]:
    """Return which entries are for training, for validation and for the test."""
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i in usable:
        rows[source.entries[i].split or "train"].append(i)
    if not rows["test"] and rows["validation"]:
        tell("There is no test split, so the validation pictures are the test.")
        rows["test"], rows["validation"] = rows["validation"], []
    elif not rows["test"]:
        digests = {i: source.facts[i].digest for i in rows["train"]}
        labels = {i: source.entries[i].label for i in rows["train"]}
        held = held_by_content(digests, labels)
        tell(
            f"There is no test split, so {len(held):,} of the {len(digests):,} pictures are it, by "
            "their content: the same ones whatever is added."
        )
        rows["test"] = [i for i in rows["train"] if i in held]
        rows["train"] = [i for i in rows["train"] if i not in held]
    return rows


def held_by_content(digests: Mapping[int, str], labels: Mapping[int, str]) -> set[int]:
    """Return which pictures are for the test: those whose digest, as a number, is low.

    So a picture's place depends on its content alone, and copies of it share it. A class that this
    leaves without a test picture, or without one to train on, gives or keeps that of the lowest or
    highest digest, if it has two different ones.

    Args:
        digests: hex, of each picture's content.
        labels: class of each picture.
    """
    bound = f"{int(TEST_SHARE * 16**8):08x}"
    members: dict[str, list[int]] = defaultdict(list)
    for i, label in labels.items():
        members[label].append(i)
    held: set[int] = set()
    for some in members.values():
        values = sorted({digests[i] for i in some})
        low = {value for value in values if value[:8] < bound}
        low = (low | {values[0]}) - {values[-1]}  # of a single one, nothing
        held |= {i for i in some if digests[i] in low}
    return held


def _split(source: Source, rows: Sequence[int], index: Mapping[str, int]) -> Split:
    """Return entries as a split, without copying any."""
    labels = torch.tensor([index[source.entries[i].label] for i in rows])
    names = tuple(source.entries[i].name for i in rows)
    return Split(source.store, labels, torch.tensor(rows), names)


def describe(dataset: Dataset, source: Source) -> str:
    """Return, in a sentence or two, what is about to be learned from."""
    counts = dataset.train.labels.bincount(minlength=len(dataset.classes))
    few, many = int(counts.min()), int(counts.max())
    side = dataset.train.store.shape[-1]
    width, height = (
        statistics.median_low(values)
        for values in zip(
            *((f.width, f.height) for f in source.facts if not f.problem), strict=True
        )
    )
    where = f"mapped from {source.mapped}" if source.mapped else "in memory"
    parts = [
        f"Pictures of {width} x {height} pixels (the medians), taken at {side} x {side}, {where}; "
        f"{few:,} to {many:,} training pictures a class."
        if few != many
        else f"Pictures of {width} x {height} pixels (the medians), taken at {side} x {side}, "
        f"{where}; {few:,} training pictures a class."
    ]
    if shared := shared_content(dataset, source):
        parts.append(f"{_count(shared, 'picture')} of the test are in training too, byte for byte.")
    if source.passed:
        parts.append(f"{_count(len(source.passed), 'other file')} passed over.")
    if shared or source.passed or source.bad:
        parts.append(f"See `hundredfold audit {source.path}`.")
    return " ".join(parts)


def shared_content(dataset: Dataset, source: Source) -> int:
    """Return how many test pictures have the very content of a training picture."""
    digest = {e.name: f.digest for e, f in zip(source.entries, source.facts, strict=True)}
    training = {digest[name] for name in dataset.train.names}
    return sum(digest[name] in training for name in dataset.test.names)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _some(texts: Iterable[str]) -> str:
    """Return the first few of several texts, and how many more there are."""
    every = list(texts)
    more = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more
