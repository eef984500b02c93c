"""What every source of pictures becomes: uint8 images, integer labels, names, a hierarchy."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.support.errors import UserError

MOST_IN_MEMORY = 2 * 2**30
"""Bytes of pictures, at most, that are held in a computer's or a GPU's memory."""


@dataclass(frozen=True)
class Split:
    """Pictures and their labels; maybe some rows of a store that is too large for memory."""

    store: Tensor
    """(M, 3, H, W) uint8, in memory or mapped from a file."""
    labels: Tensor
    """(N,) int64, indices into the dataset's classes."""
    rows: Tensor | None = None
    """(N,) int64, where in the store each picture is; None for all of it, in order."""
    names: tuple[str, ...] = ()
    """What people call each picture: a path, say; empty where they have no names."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        """Return the pictures at `index`, (M,) int64 in that order, or of a slice: a copy."""
        where = index if self.rows is None else self.rows[index]
        return Split(self.store[where], self.labels[index])

    @property
    def images(self) -> Tensor:
        """(N, 3, H, W) uint8, all in memory: of a large split rather take `parts`."""
        return self.store if self.rows is None else self.store[self.rows]

    @property
    def nbytes(self) -> int:
        """What all pictures together take."""
        return len(self) * self.store[0].nbytes if len(self.store) else 0

    def parts(self, size: int = 500) -> Iterator[Tensor]:
        """Yield all pictures in order, up to `size` at a time, (B, 3, H, W) uint8."""
        for start in range(0, len(self), size):
            yield self[start : start + size].store

    def select(self, index: Tensor) -> "Split":
        """Return the pictures at `index`, (M,) int64, without copying any."""
        rows = index if self.rows is None else self.rows[index]
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return Split(self.store, self.labels[index], rows, names)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device; one that is too large stays where it is."""
        if device == self.store.device or self.nbytes > MOST_IN_MEMORY:
            return self
        return Split(self.images.to(device), self.labels.to(device), names=self.names)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split over the same classes."""

    source: str
    """What `--data` would name it, in full: a run that reads it again finds the same pictures."""
    train: Split
    test: Split
    classes: tuple[str, ...]
    superclasses: tuple[str, ...] = ()
    """Names of the coarse classes; empty where there is no hierarchy."""
    parents: tuple[int, ...] = ()
    """Index of each class's superclass; empty where there is no hierarchy."""
    validation: Split | None = None
    """Pictures that the source itself holds out; None where they are to be cut from `train`."""

    @property
    def splits(self) -> dict[str, Split]:
        """The splits there are, by name: train, test and maybe validation."""
        held = {} if self.validation is None else {"validation": self.validation}
        return {"train": self.train, "test": self.test} | held

    def digest(self) -> str:
        """Return the SHA-256, as hex, of all pictures, labels and names."""
        names = repr((self.classes, self.superclasses, self.parents))
        digest = hashlib.sha256(names.encode())
        for split in self.splits.values():
            digest.update(repr((len(split), *split.store.shape[1:])).encode())
            for part in split.parts():
                digest.update(part.contiguous().numpy().data)
            digest.update(repr(tuple(split.labels.shape)).encode())
            digest.update(split.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def test_picture(self, index: int) -> tuple[Tensor, str]:
        """Return a test picture, (3, H, W) uint8, and the name of its class.

        Raises:
            UserError: there is no test picture of that number.
        """
        if not 0 <= index < len(self.test):
            raise UserError(f"--test {index}: the test pictures are 0 to {len(self.test) - 1}.")
        picture = self.test[index : index + 1]
        return picture.store[0], self.classes[int(picture.labels)]

    def with_labels(self, level: Literal["fine", "coarse"]) -> "Dataset":
        """Return the dataset with labels of the given level; coarse ones are their own parents.

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
    """Cut a validation split from a training split, the same share of each class.

    Args:
        split: what to cut.
        share: 0..1, of each class, rounded to whole pictures; a class keeps at least one.
        seed: decides which pictures.

    Returns:
        (the rest, the held-out pictures), both in their first order, neither copied.
    """
    rng = generator(seed, "validation")
    order = torch.randperm(len(split), generator=rng)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = order[split.labels[order] == label]
        held[members[: min(round(share * len(members)), len(members) - 1)]] = True
    return split.select((~held).nonzero()[:, 0]), split.select(held.nonzero()[:, 0])
