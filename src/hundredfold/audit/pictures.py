"""Load every picture of a source for an audit, from all of its splits."""

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
"""Side in pixels at which pictures are compared."""


@dataclass(frozen=True)
class AuditedPictures:
    """All readable pictures of a source, and facts about its other files."""

    source: str
    store: Tensor
    """(N, 3, SIDE, SIDE) uint8."""
    labels: Tensor
    """(N,) int64, indices into `classes`."""
    classes: tuple[str, ...]
    parents: tuple[str, ...]
    """(N,) superclass of each picture; empty strings if there are none."""
    splits: tuple[str, ...]
    """(N,) train, validation or test; empty strings if the source does not say."""
    names: tuple[str, ...]
    """(N,) name of each picture for people: a path, or its split and number."""
    digests: tuple[str, ...]
    """(N,) digest of each picture's content; empty if it is not known."""
    groups: tuple[str, ...] = ()
    """(N,) group of each picture, such as a person; empty strings, or no items, if none is
    given."""
    facts: tuple[FileInfo, ...] = ()
    """(N,) facts about each file; empty if the pictures are not files."""
    paths: tuple[Path, ...] = ()
    """(N,) path of each file; empty if the pictures are not files."""
    unusable: tuple[Skipped, ...] = ()
    """Pictures that cannot be used, each with the reason."""
    lost_classes: tuple[Skipped, ...] = ()
    """Classes without a usable picture, each with the reason."""
    other_files: tuple[Skipped, ...] = ()
    """Files that are not pictures, each with the reason."""
    left_out: tuple[str, ...] = ()
    """Sentences, without full stops, about pictures that a training leaves out."""
    remarks: tuple[str, ...] = ()
    """Sentences about names and folders that were guessed or may be mistakes."""

    def __len__(self) -> int:
        return len(self.labels)

    def class_of(self, picture: int) -> str:
        """Return the name of a picture's class."""
        return self.classes[int(self.labels[picture])]


def load_audited_pictures(source: str) -> AuditedPictures:
    """Load the pictures of a source, named as for `--data`.

    Raises:
        UserError: see `load_data`.
    """
    path = find_source(source)
    if path is None or cifar100.is_at(path):
        return from_dataset(load_data(source))
    return _from_files(path)


def _from_files(path: Path) -> AuditedPictures:
    source = read_collection(path, SIDE)
    usable = [i for i, fact in enumerate(source.infos) if not fact.problem]
    entries = [source.entries[i] for i in usable]
    classes = in_natural_order(entry.label for entry in entries)
    index = {name: i for i, name in enumerate(classes)}
    facts = tuple(source.infos[i] for i in usable)
    rest = "train" if any(entry.split for entry in entries) else ""  # as for a training
    return AuditedPictures(
        source=str(source.path),
        store=source.store[torch.tensor(usable, dtype=torch.int64)],
        labels=torch.tensor([index[entry.label] for entry in entries], dtype=torch.int64),
        classes=tuple(classes),
        parents=tuple(entry.parent for entry in entries),
        splits=tuple(entry.split or rest for entry in entries),
        names=tuple(entry.name for entry in entries),
        digests=tuple(fact.digest for fact in facts),
        groups=tuple(entry.group for entry in entries),
        facts=facts,
        paths=tuple(entry.path for entry in entries),
        unusable=tuple(source.unusable),
        lost_classes=tuple(source.empty_classes),
        other_files=source.skipped,
        left_out=source.listing.left_out,
        remarks=source.listing.remarks,
    )


def from_dataset(dataset: Dataset) -> AuditedPictures:
    """Return a dataset's pictures, training first, named by their split and number in it."""
    splits = dataset.splits
    store = torch.cat([split.images for split in splits.values()])
    labels = torch.cat([split.labels for split in splits.values()])
    superclasses = dataset.parents and [dataset.superclasses[parent] for parent in dataset.parents]
    return AuditedPictures(
        source=dataset.source,
        store=store,
        labels=labels,
        classes=dataset.classes,
        parents=tuple(superclasses[label] if superclasses else "" for label in labels.tolist()),
        splits=tuple(name for name, split in splits.items() for _ in range(len(split))),
        names=tuple(f"{name} {i}" for name, split in splits.items() for i in range(len(split))),
        digests=tuple(_digest(image) for image in store),
    )


def _digest(image: Tensor) -> str:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).hexdigest()
