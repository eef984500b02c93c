"""Show a dataset before training: pictures of each class, their augmentation, means and counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hundredfold.augment import augment, describe_augmentation, plan_epoch, prepare
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset, Split, hold_out
from hundredfold.experiments.explore_page import (
    AugmentedPicture,
    ClassSample,
    render_exploration,
)
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.training.setup import Setup, batch_at, make_setup

MAX_CLASSES = 100
"""Most classes whose pictures the page shows, so that it stays small."""
MAX_AUGMENTED, MAX_VERSIONS = 10, 12
"""Number of pictures shown with their augmentation, and of versions of each over all sizes."""


def explore(dataset: Dataset, config: Config, out: str | Path) -> Path:
    """Write a self-contained page, explore.html, that shows a dataset before training.

    It shows training pictures of each class, augmented versions of some pictures, the mean picture
    of each class, and the number of pictures per class where the classes differ. If there are more
    than 100 classes, it shows 100 of them, spread evenly.

    Args:
        dataset: the dataset to show.
        config: the configuration whose augmentation is shown. Pictures that it holds out for
            validation are not shown.
        out: folder of the page; created if it does not exist.

    Returns:
        The path of the page.

    Raises:
        UserError: the configuration does not fit the data, or the folder cannot be written.

    Examples:
        >>> explore(load_sample(), fast(), "pictures").name
        'explore.html'
    """
    setup = make_setup(config, dataset.with_labels(config.labels), torch.device("cpu"))
    training = training_split(setup, dataset)
    classes = choose_classes(dataset)
    chosen = choose_pictures(training, classes)
    page = render_exploration(
        dataset,
        _class_samples(dataset, training, classes, chosen),
        _augmented_pictures(setup, chosen, [dataset.classes[label] for label in classes]),
        augmentation_sentence(setup),
        unequal_counts(dataset),
    )
    path = make_folder(expanded(out)) / "explore.html"
    save_file(path, page)
    return path


def _class_samples(
    dataset: Dataset, training: Split, classes: Sequence[int], chosen: Sequence[Tensor]
) -> list[ClassSample]:
    """Return what the page shows of each class; `chosen` has indices of training pictures."""
    means = class_means(training, classes)
    above = dataset.superclasses
    return [
        ClassSample(
            dataset.classes[label],
            above[dataset.parents[label]] if above else "",
            training[places].images,
            mean,
        )
        for label, places, mean in zip(classes, chosen, means, strict=True)
    ]


def training_split(setup: Setup, dataset: Dataset) -> Split:
    """Return the training pictures of a setup, with the fine labels of the dataset."""
    config = setup.config
    if dataset.validation is not None:
        return dataset.train
    labels = dataset.with_labels(config.labels).train.labels
    groups = dataset.train.groups
    indices = Split(torch.arange(len(labels)), labels, groups=groups)  # indices for pictures
    kept, _ = hold_out(indices, config.validation, config.seed)
    return replace(setup.train_split, labels=dataset.train.labels[kept.images])


def choose_classes(dataset: Dataset) -> list[int]:
    """Return the classes to show, sorted by superclass: all, or 100 spread evenly."""
    count = len(dataset.classes)
    order = sorted(range(count), key=lambda i: (dataset.parents[i] if dataset.parents else 0, i))
    return [order[i] for i in _evenly_spaced(count, MAX_CLASSES)]


def choose_pictures(split: Split, classes: Sequence[int]) -> list[Tensor]:
    """Return, for each class, indices of at most K of its pictures, int64, spread over the split.

    K is 6 if there are many classes, and up to 12 if there are few.
    """
    most = max(6, min(12, 600 // len(classes)))
    members = [(split.labels == label).nonzero()[:, 0] for label in classes]
    return [places[_evenly_spaced(len(places), most)] for places in members]


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced integers of 0..count-1."""
    shown = min(count, most)
    return [i * count // shown for i in range(shown)]


def class_counts(dataset: Dataset) -> dict[str, list[int]]:
    """Return how many training and how many test pictures each class has."""
    splits = {"training": dataset.train, "test": dataset.test}
    classes = len(dataset.classes)
    return {
        name: torch.bincount(s.labels, minlength=classes).tolist() for name, s in splits.items()
    }


def unequal_counts(dataset: Dataset) -> dict[str, list[int]]:
    """Return `class_counts` of the splits in which the classes differ."""
    counts = class_counts(dataset)
    return {name: values for name, values in counts.items() if len(set(values)) > 1}


def class_means(split: Split, classes: Sequence[int]) -> list[Tensor | None]:
    """Return the mean picture of each class, (3, H, W) uint8; None for one without pictures."""
    means: list[Tensor | None] = []
    for label in classes:
        members = split.select((split.labels == label).nonzero()[:, 0])
        total = torch.zeros(split.store.shape[1:], dtype=torch.float64)
        for part in members.parts():
            total += part.sum(0, dtype=torch.float64)
        means.append((total / len(members)).round().to(torch.uint8) if len(members) else None)
    return means


def augmented(setup: Setup, chosen: Tensor, epochs: int, size: int) -> list[list[Tensor]]:
    """Return training pictures exactly as training sees them in its first epochs.

    With `balance="sampling"` an epoch may show a picture several times, or not at all.

    Args:
        setup: the setup that has the training pictures and the augmentation.
        chosen: (P,) int64, indices of pictures in its training split.
        epochs: number of epochs.
        size: side in pixels.

    Returns:
        For each picture its first versions, at most `epochs` of them, each (3, size, size) uint8.
    """
    split, classes, batch_size = setup.train_split, len(setup.info.classes), setup.config.batch_size
    versions: list[list[Tensor]] = [[] for _ in chosen]
    for epoch in range(epochs):
        plan = plan_epoch(split.labels, classes, split.store.shape[-1], epoch, setup.config)
        order = plan.order[: setup.epoch_pictures]
        rows, places = (chosen[:, None] == order).nonzero(as_tuple=True)
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            if len(versions[row]) < epochs:
                batch = batch_at(place // batch_size, len(split), batch_size)
                pictures = split[order[batch]]  # an augmentation may mix pictures of a batch
                images, _ = augment(pictures.images, pictures.labels, plan[batch])
                x = prepare(images[place - batch.start][None], *setup.channels, size)
                versions[row].append(to_pixels(x, *setup.channels)[0])
    return versions


def to_pixels(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return network input (B, C, H, W) as uint8 pixels: the inverse of `prepare`.

    Clipping is not needed: resizing averages, so all values are within 0..255 after rounding.
    """
    return (255 * (x * std.view(-1, 1, 1) + mean.view(-1, 1, 1))).round().to(torch.uint8)


def _augmented_pictures(
    setup: Setup, chosen: Sequence[Tensor], names: Sequence[str]
) -> list[AugmentedPicture]:
    """Return some of the chosen pictures with their augmented versions at each training size.

    Args:
        setup: as in `augmented`.
        chosen: for each class indices of pictures in the training split.
        names: name of each class.
    """
    present = [i for i, places in enumerate(chosen) if len(places)]
    classes = [present[i] for i in _evenly_spaced(len(present), MAX_AUGMENTED)]
    shown = {i: chosen[i][: MAX_AUGMENTED // len(classes)] for i in classes}
    places = torch.cat(list(shown.values()))
    epochs = _versions_per_size(setup)
    versions = {size: augmented(setup, places, epochs, size) for size in sorted(set(setup.sizes))}
    labels = [names[i] for i, members in shown.items() for _ in members]
    return [
        AugmentedPicture(name, original, {size: rows[i] for size, rows in versions.items()})
        for i, (name, original) in enumerate(
            zip(labels, setup.train_split[places].images, strict=True)
        )
    ]


def _versions_per_size(setup: Setup) -> int:
    """Return the number of epochs whose versions of a picture are shown at each size."""
    return max(1, MAX_VERSIONS // len(set(setup.sizes)))


def augmentation_sentence(setup: Setup) -> str:
    """Return a sentence that says how the pictures are augmented and which versions are shown."""
    config = setup.config
    order = "in the order of the epochs"
    if config.balance == "sampling":
        order = f"as the first {_versions_per_size(setup)} epochs draw them by class"
    return (
        f"Training pictures with the augmentation of {config.name}, {order}: "
        f"{describe_augmentation(config, setup.train_split.store.shape[-1])}."
    )
