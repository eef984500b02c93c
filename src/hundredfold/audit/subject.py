"""What is audited: every picture of a source, whatever its split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hundredfold.data import cifar100
from hundredfold.data.collection import read_collection
from hundredfold.data.dataset import Dataset
from hundredfold.data.decode import FileInfo
from hundredfold.data.load import find_source, load_data
from hundredfold.pictures.walk import Skipped, in_natural_order

SIDE = 32
"""Pixels a side that pictures are compared at."""


@dataclass(frozen=True)
class Subject:
    """The pictures of a source that can be read, and what is known of the rest."""

    source: str
    store: Tensor
    """(N, 3, SIDE, SIDE) uint8."""
    labels: Tensor
    """(N,) int64, indices into `classes`."""
    classes: tuple[str, ...]
    parents: tuple[str, ...]
    """(N,) superclass of each picture; empty texts where there are none."""
    splits: tuple[str, ...]
    """(N,) train, validation or test; empty texts where the source does not say."""
    names: tuple[str, ...]
    """(N,) what people call each picture."""
    digests: tuple[str, ...]
    """(N,) of each content."""
    facts: tuple[FileInfo, ...] = ()
    """(N,) of each file; empty where the pictures are none."""
    paths: tuple[Path, ...] = ()
    """(N,) the files; empty where there are none."""
    bad: tuple[Skipped, ...] = ()
    """Pictures that cannot be read."""
    lost: tuple[Skipped, ...] = ()
    """Classes without a picture that can be used."""
    passed: tuple[Skipped, ...] = ()
    """Other files."""

    def __len__(self) -> int:
        return len(self.labels)

    def class_of(self, picture: int) -> str:
        """Return the name of a picture's class."""
        return self.classes[int(self.labels[picture])]


def load_subject(source: str) -> Subject:
    """Load what `--data` would name, to audit it.

    Raises:
        UserError: as `load_data` does.
    """
    path = find_source(source)
    if path is None or cifar100.is_at(path):
        return of_dataset(load_data(source))
    return _own(path)


def _own(path: Path) -> Subject:
    source = read_collection(path, SIDE)
    usable = [i for i, fact in enumerate(source.infos) if not fact.problem]
    entries = [source.entries[i] for i in usable]
    classes = in_natural_order(entry.label for entry in entries)
    index = {name: i for i, name in enumerate(classes)}
    facts = tuple(source.infos[i] for i in usable)
    return Subject(
        source=str(source.path),
        store=source.store[torch.tensor(usable, dtype=torch.int64)],
        labels=torch.tensor([index[entry.label] for entry in entries], dtype=torch.int64),
        classes=tuple(classes),
        parents=tuple(entry.parent for entry in entries),
        splits=tuple(entry.split for entry in entries),
        names=tuple(entry.name for entry in entries),
        digests=tuple(fact.digest for fact in facts),
        facts=facts,
        paths=tuple(entry.path for entry in entries),
        bad=tuple(source.unusable),
        lost=tuple(source.empty_classes),
        passed=source.skipped,
    )


def of_dataset(dataset: Dataset) -> Subject:
    """Return a dataset's pictures, training first; their names are their numbers in their split."""
    splits = dataset.splits
    store = torch.cat([split.images for split in splits.values()])
    labels = torch.cat([split.labels for split in splits.values()])
    above = dataset.parents and [dataset.superclasses[parent] for parent in dataset.parents]
    return Subject(
        source=dataset.source,
        store=store,
        labels=labels,
        classes=dataset.classes,
        parents=tuple(above[label] if above else "" for label in labels.tolist()),
        splits=tuple(name for name, split in splits.items() for _ in range(len(split))),
        names=tuple(f"{name} {i}" for name, split in splits.items() for i in range(len(split))),
        digests=tuple(_digest(image) for image in store),
    )


def _digest(image: Tensor) -> str:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).hexdigest()
