"""A person's own pictures: from a folder, an archive or a table to a dataset."""

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.sentences import untested
from hundredfold.data.source import Source, read_source
from hundredfold.data.split import split_rows
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import UserError, some
from hundredfold.support.text import plural

MOST_LOST = 50
"""Lost classes, at most, that a sentence names."""


def load_own(
    path: Path, tell: Callable[[str], None], *, size: int = 0, strict: bool = False
) -> Dataset:
    """Load a person's own pictures as a dataset.

    Classes are known by name, in natural order. Without a test split of its own, a source's
    validation split is the test; without that too, a fifth of its pictures is (see `split`).

    Args:
        path: as in `read_source`.
        tell: takes a sentence for the user where something was decided for them.
        size: side in pixels; 0 to choose by the pictures.
        strict: refuse what would otherwise be left out.

    Raises:
        UserError: nothing there, nothing to learn from, or `strict` and something is wrong.
    """
    source = read_source(path, size)
    for sentence in source.listing.remarks:
        tell(sentence)
    left_out = what_is_left_out(source, path)
    if strict and left_out:
        raise UserError(f"{'. '.join(left_out)}. Mend or remove them, or leave out --strict.")
    for sentence in left_out:
        tell(f"{sentence}. Left out.")
    return assemble(source, tell, strict=strict)


def what_is_left_out(source: Source, path: Path) -> list[str]:
    """Return sentences, without their full stops, about pictures and classes that are left out."""
    sentences = list(source.listing.left_out)
    if source.bad:
        sentences.append(
            f"{plural(len(source.bad), 'picture')} of {path} cannot be used: "
            + some(f"{name} ({reason})" for name, reason in source.bad)
        )
    if lost := source.lost:
        sentences.append(
            f"{plural(len(lost), 'class has', 'classes have')} no picture that can be used: "
            + some((f"{name} ({reason})" for name, reason in lost), MOST_LOST)
        )
    return sentences


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
            f"{source.path} has {plural(len(names), 'class')} to learn: there must be "
            "two at least, each in a folder of its name."
        )
    known = set(names)
    for split, chosen in rows.items():
        unknown = Counter(entries[i].label for i in chosen if entries[i].label not in known)
        if unknown:
            sentence = (
                f"The {split} pictures have classes that the training pictures lack: "
                + some(f"{name} ({number})" for name, number in unknown.items())
            )
            if strict:
                raise UserError(f"{sentence}.")
            tell(f"{sentence}. Left out.")
            rows[split] = [i for i in chosen if entries[i].label in known]
    if not rows["test"]:
        raise UserError(
            f"{source.path} leaves no picture to test on: some class needs two pictures at least."
        )
    dataset = _dataset(source, rows, names)
    if missing := untested(names, dataset.test.labels.bincount(minlength=len(names)).tolist()):
        tell(missing)
    tell(describe(dataset, source))
    return dataset


def _dataset(source: Source, rows: Mapping[str, Sequence[int]], names: Sequence[str]) -> Dataset:
    """Return entries as a dataset of these classes, without copying any."""
    entries, index = source.entries, {name: i for i, name in enumerate(names)}
    above = {entries[i].label: entries[i].parent for i in rows["train"]}
    supers = in_natural_order(above.values()) if any(above.values()) else []
    splits = {name: _split(source, chosen, index) for name, chosen in rows.items() if chosen}
    return Dataset(
        source=str(source.path),
        train=splits["train"],
        test=splits["test"],
        classes=tuple(names),
        superclasses=tuple(supers),
        parents=tuple(supers.index(above[name]) for name in names) if supers else (),
        validation=splits.get("validation"),
    )


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
    each = (f"{few:,} to " if few != many else "") + plural(many, "training picture")
    parts = [
        f"Pictures of {width} x {height} pixels (the medians), taken at {side} x {side}, {where}; "
        f"{each} a class."
    ]
    if shared := shared_content(dataset, source):
        parts.append(f"{plural(shared, 'picture')} of the test are in training too, byte for byte.")
    if source.passed:
        parts.append(f"{plural(len(source.passed), 'other file')} passed over.")
    if shared or source.passed or source.bad:
        parts.append(f"See `hundredfold audit {shlex.quote(str(source.path))}`.")
    return " ".join(parts)


def shared_content(dataset: Dataset, source: Source) -> int:
    """Return how many test pictures have the very content of a training picture."""
    digest = {e.name: f.digest for e, f in zip(source.entries, source.facts, strict=True)}
    training = {digest[name] for name in dataset.train.names}
    return sum(digest[name] in training for name in dataset.test.names)
