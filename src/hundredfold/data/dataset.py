"""Datasets: uint8 images, integer labels, class names, and an optional class hierarchy."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from hundredfold.augment import channel_stats, generator
from hundredfold.data.encoded import EncodedPictures
from hundredfold.pictures.pixels import Fit
from hundredfold.support.console import counted
from hundredfold.support.errors import UserError, first_few

MAX_IN_MEMORY = 2 * 2**30
"""Maximum size in bytes of pictures that are held in the memory of a computer or GPU."""


@dataclass(frozen=True)
class Split:
    """Pictures and their labels: all rows of a store, or some of them."""

    store: Tensor | EncodedPictures
    """(M, 3, H, W) uint8, in memory, mapped from a file, or decoded when they are needed."""
    labels: Tensor
    """(N,) int64, indices into the dataset's classes."""
    rows: Tensor | None = None
    """(N,) int64, row of each picture in the store; None for all rows, in order."""
    names: tuple[str, ...] = ()
    """Name of each picture, such as its path; empty if the pictures have no names."""
    groups: Tensor | None = None
    """(N,) int64, the group of each picture: those of one group are held out together, or not at
    all. Groups of different splits of a dataset share their numbers. None if each picture is its
    own group."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        """Return a copy of the pictures at `index`, a slice or (M,) int64, in that order."""
        where = index if self.rows is None else self.rows[index]
        groups = None if self.groups is None else self.groups[index]
        return Split(self.store[where], self.labels[index], groups=groups)

    @property
    def images(self) -> Tensor:
        """All pictures in memory, (N, 3, H, W) uint8. For a large split, use `parts` instead."""
        return self.store[slice(None) if self.rows is None else self.rows]

    @property
    def nbytes(self) -> int:
        """Size of all pictures in bytes."""
        return len(self) * prod(self.store.shape[1:])

    def parts(self, size: int = 500) -> Iterator[Tensor]:
        """Yield all pictures in order, up to `size` at a time, (B, 3, H, W) uint8."""
        return self.batches(slice(start, start + size) for start in range(0, len(self), size))

    def batches(self, chosen: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        """Yield the pictures at each index, a slice or (B,) int64, as (B, 3, H, W) uint8.

        Raises:
            UserError: pictures that are decoded when they are needed cannot be read any more.
        """
        if isinstance(self.store, EncodedPictures):
            rows = self.every_row
            return self.store.batches(rows[index] for index in chosen)
        return (self[index].images for index in chosen)

    @property
    def every_row(self) -> Tensor:
        """(N,) int64, row of each picture in the store."""
        return torch.arange(len(self)) if self.rows is None else self.rows

    def channel_stats(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and the standard deviation of each channel, as `augment` defines them."""
        if not isinstance(self.store, EncodedPictures):
            return channel_stats(self.parts())
        key = hashlib.sha256(self.every_row.numpy().data).hexdigest()
        found = self.store.remember(f"channels {key}", lambda: channel_stats(_shown_parts(self)))
        mean, std = map(tuple, found)
        return mean, std

    def select(self, index: Tensor) -> "Split":
        """Return the pictures at `index`, (M,) int64, without copying them."""
        rows = index if self.rows is None else self.rows[index]
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        groups = None if self.groups is None else self.groups[index]
        return Split(self.store, self.labels[index], rows, names, groups)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device. A split that is too large stays where it is."""
        if device == self.store.device or self.nbytes > MAX_IN_MEMORY:
            return self
        images, labels = self.images.to(device), self.labels.to(device)
        return Split(images, labels, names=self.names, groups=self.groups)


def _shown_parts(split: Split) -> Iterator[Tensor]:
    """Yield the parts of a split and show the progress."""
    with counted("Decoding", len(split)) as advance:
        for part in split.parts():
            yield part
            advance(len(part))


@dataclass(frozen=True)
class Dataset:
    """A training and a test split over the same classes."""

    source: str
    """The value of `--data` that loads the same pictures again, with the full path."""
    train: Split
    test: Split
    classes: tuple[str, ...]
    superclasses: tuple[str, ...] = ()
    """Names of the superclasses; empty if there is no hierarchy."""
    parents: tuple[int, ...] = ()
    """Index of each class's superclass; empty if there is no hierarchy."""
    validation: Split | None = None
    """Validation pictures that come with the source; None if they are to be cut from `train`."""
    fit: Fit = "crop"
    """How pictures that were not square became squares."""

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, test and, if there is one, validation."""
        held = {} if self.validation is None else {"validation": self.validation}
        return {"train": self.train, "test": self.test} | held

    def digest(self) -> str:
        """Return the SHA-256, as hex, of all pictures, labels, groups and names of classes."""
        store = self.train.store
        if isinstance(store, EncodedPictures) and all(
            split.store is store for split in self.splits.values()
        ):
            key = self._digest(lambda split: [split.every_row])
            return str(store.remember(f"digest {key}", lambda: self._digest(_shown_parts)))
        return self._digest(Split.parts)

    def _digest(self, contents: "Callable[[Split], Iterable[Tensor]]") -> str:
        """Return the digest with what stands for the pictures of a split."""
        names = repr((self.classes, self.superclasses, self.parents))
        digest = hashlib.sha256(names.encode())
        for name, split in self.splits.items():
            digest.update(repr((len(split), *split.store.shape[1:])).encode())
            for part in contents(split):
                digest.update(part.contiguous().numpy().data)
            digest.update(repr(tuple(split.labels.shape)).encode())
            digest.update(split.labels.contiguous().numpy().data)
            # They decide which pictures are held out, which test pictures never are.
            if split.groups is not None and name != "test":
                digest.update(split.groups.contiguous().numpy().data)
        return digest.hexdigest()

    def test_picture(self, index: int) -> tuple[Tensor, str]:
        """Return a test picture, (3, H, W) uint8, and the name of its class.

        Raises:
            UserError: there is no test picture of that number.
        """
        if not 0 <= index < len(self.test):
            raise UserError(
                f"There is no test picture {index}. The test pictures have the numbers 0 to "
                f"{len(self.test) - 1}."
            )
        picture = self.test[index : index + 1]
        return picture.images[0], self.classes[int(picture.labels)]

    def with_labels(self, level: Literal["fine", "coarse"]) -> "Dataset":
        """Return the dataset with fine labels, or with superclasses as its classes.

        Raises:
            UserError: coarse labels of a dataset without superclasses.
        """
        if level == "fine":
            return self
        if not self.superclasses:
            raise UserError(
                f"--labels coarse needs superclasses, and {self.source} has none: "
                "train with --labels fine."
            )
        parents = torch.tensor(self.parents)
        above = {
            name: replace(split, labels=parents[split.labels])
            for name, split in self.splits.items()
        }
        return replace(
            self,
            train=above["train"],
            test=above["test"],
            validation=above.get("validation"),
            classes=self.superclasses,
            superclasses=self.superclasses,
            parents=tuple(range(len(self.superclasses))),
        )


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Cut a validation split from a training split, stratified by class.

    The pictures of a group stay together. So a class may get fewer held-out pictures than its
    share. It gets more, up to half of its pictures, only if it would get none otherwise.

    Args:
        split: the training split.
        share: share of each class to hold out, 0..1, rounded to whole pictures. Each class keeps at
            least one picture.
        seed: seed of the random choice.

    Returns:
        (the rest, the held-out pictures), both in their original order and not copied.
    """
    rng = generator(seed, "validation")
    order = torch.randperm(len(split), generator=rng)
    if split.groups is not None:
        held = _hold_out_groups(split.labels, split.groups, share, order)
        return split.select((~held).nonzero()[:, 0]), split.select(held.nonzero()[:, 0])
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = order[split.labels[order] == label]
        held[members[: min(round(share * len(members)), len(members) - 1)]] = True
    return split.select((~held).nonzero()[:, 0]), split.select(held.nonzero()[:, 0])


def _hold_out_groups(labels: Tensor, groups: Tensor, share: float, order: Tensor) -> Tensor:
    """Return which pictures are held out, (N,) bool, so that groups stay together.

    Args:
        labels: (N,) int64.
        groups: (N,) int64.
        share: share of each class to hold out.
        order: (N,) int64, a random order of the pictures, in which their groups are considered.
    """
    inside: dict[int, Counter[int]] = defaultdict(Counter)  # pictures of each class in each group
    for group, label in zip(groups[order].tolist(), labels[order].tolist(), strict=True):
        inside[group][label] += 1
    total = Counter(labels.tolist())
    wanted = {label: min(round(share * count), count - 1) for label, count in total.items()}
    taken: Counter[int] = Counter()
    chosen: set[int] = set()

    def take(group: int, most: Mapping[int, int]) -> None:
        own = inside[group]
        if group not in chosen and all(taken[c] + n <= most[c] for c, n in own.items()):
            chosen.add(group)
            taken.update(own)

    for group in inside:
        take(group, wanted)
    most = {label: max(wanted[label], count // 2) for label, count in total.items()}
    smallest_first = sorted(inside, key=lambda group: inside[group].total())
    for label in sorted(label for label, count in wanted.items() if count and not taken[label]):
        for group in smallest_first:
            if label in inside[group] and not taken[label]:
                take(group, most)
    return torch.tensor([group in chosen for group in groups.tolist()])


def describe_untested(classes: Sequence[str], counts: Sequence[int]) -> str:
    """Return a sentence about the classes without test pictures; empty if there are none.

    Args:
        classes: class names.
        counts: number of test pictures of each class.
    """
    names = [name for name, number in zip(classes, counts, strict=True) if not number]
    if not names:
        return ""
    has, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return (
        f"{len(names):,} of the {len(classes):,} classes {has} no test picture, so the accuracy "
        f"does not cover {them}: {first_few(names)}."
    )
