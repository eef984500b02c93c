"""Render the page that shows a dataset before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from torch import Tensor

from hundredfold.data.addresses import without_key
from hundredfold.data.dataset import Dataset
from hundredfold.pictures.load import as_tensor, data_uri, to_image
from hundredfold.support.html import render_page

LARGEST = 64
"""Longer side in pixels to which larger pictures are shrunk, so that the page stays small."""


@dataclass(frozen=True)
class ClassSample:
    """What the page shows of a class."""

    name: str
    superclass: str
    """Empty if the dataset has no superclasses."""
    pictures: Tensor
    """Training pictures (K, 3, H, W) uint8; K may be 0."""
    mean: Tensor | None
    """Mean training picture (3, H, W) uint8; None if the class has no training pictures."""


@dataclass(frozen=True)
class AugmentedPicture:
    """A training picture beside its augmented versions."""

    name: str
    """Name of its class."""
    original: Tensor
    """(3, H, W) uint8."""
    versions: Mapping[int, Sequence[Tensor]]
    """Versions (3, S, S) uint8 in the order of the epochs, by their side S in pixels."""


def render_exploration(
    dataset: Dataset,
    classes: Sequence[ClassSample],
    augmented: Sequence[AugmentedPicture],
    augmentation: str,
    counts: Mapping[str, Sequence[int]],
) -> str:
    """Return the self-contained HTML page.

    Args:
        dataset: the dataset.
        classes: the classes to show; those of one superclass side by side.
        augmented: a few pictures with their augmented versions.
        augmentation: a sentence about how they are augmented.
        counts: number of pictures of each class, by the name of the split.
    """
    superclasses = groupby(classes, key=lambda sample: sample.superclass)
    rows = zip(dataset.classes, zip(*counts.values(), strict=True), strict=True) if counts else ()
    return render_page(
        "hundredfold.experiments",
        "explore.html",
        dataset=dataset,
        source=without_key(dataset.source),
        classes=classes,
        superclasses=[(name, list(members)) for name, members in superclasses],
        augmented=augmented,
        augmentation=augmentation,
        splits=list(counts),
        rows=sorted(rows, key=lambda row: row[1], reverse=True),
        largest=[max(values) for values in counts.values()],
        address=_address,
    )


def _address(picture: Tensor) -> str:
    """Return a picture, (3, H, W) uint8, as a data URI; a large one is shrunk to `LARGEST`."""
    if max(picture.shape) <= LARGEST:
        return data_uri(picture)
    image = to_image(picture)
    image.thumbnail((LARGEST, LARGEST))
    return data_uri(as_tensor(np.array(image)))
