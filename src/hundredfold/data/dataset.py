"""What every source of pictures becomes: uint8 images, integer labels, names, a hierarchy."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.errors import UserError


@dataclass(frozen=True)
class Split:
    """Pictures and their labels."""

    images: Tensor
    """(N, 3, H, W) uint8."""
    labels: Tensor
    """(N,) int64, indices into the dataset's classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        """Return the pictures at `index`, (M,) int64 in that order, or of a slice."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


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

    def digest(self) -> str:
        """Return the SHA-256, as hex, of all pictures, labels and names."""
        names = repr((self.classes, self.superclasses, self.parents))
        digest = hashlib.sha256(names.encode())
        for split in (self.train, self.test):
            for tensor in (split.images, split.labels):
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def test_picture(self, index: int) -> tuple[Tensor, str]:
        """Return a test picture, (3, H, W) uint8, and the name of its class.

        Raises:
            UserError: there is no test picture of that number.
        """
        if not 0 <= index < len(self.test):
            raise UserError(f"--test {index}: the test pictures are 0 to {len(self.test) - 1}.")
        return self.test.images[index], self.classes[int(self.test.labels[index])]

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
        return Dataset(
            source=self.source,
            train=Split(self.train.images, parents[self.train.labels]),
            test=Split(self.test.images, parents[self.test.labels]),
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
        (the rest, the held-out pictures), both in their first order.
    """
    rng = generator(seed, "validation")
    order = torch.randperm(len(split), generator=rng)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = order[split.labels[order] == label]
        held[members[: min(round(share * len(members)), len(members) - 1)]] = True
    return split[(~held).nonzero()[:, 0]], split[held.nonzero()[:, 0]]
