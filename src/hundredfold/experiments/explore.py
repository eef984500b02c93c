"""Look at the data before training: pictures of it, and of what augmentation makes of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hundredfold.augment import augment, describe, plan_epoch, prepare
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset, Split, hold_out
from hundredfold.figures.data import draw_augmentation, draw_counts, draw_means, draw_samples
from hundredfold.figures.style import to_png
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.training.setup import Setup, make_setup

CLASSES = 100
"""At most so many on a page: of more, the pictures would be too small to look at."""
AUGMENTED, VERSIONS = 10, 12
"""Pictures shown augmented, and versions of each over all sizes together."""


def explore(dataset: Dataset, config: Config, out: str | Path) -> list[Path]:
    """Write pictures of a dataset into a folder: samples, their augmentation, means, counts.

    Of more than 100 classes, 100 are shown, spread evenly. Counts that are equal are not drawn.

    Args:
        dataset: what to look at.
        config: whose augmentation to show, and which pictures it would hold out.
        out: the folder; made where it is not there.

    Returns:
        The files, PNG.

    Raises:
        UserError: the configuration does not fit the data, or the folder cannot be written.
    """
    setup = make_setup(config, dataset.with_labels(config.labels), torch.device("cpu"))
    training = trained_on(setup, dataset)
    shown = choose_classes(dataset)
    chosen = choose_pictures(training, shown)
    names = [dataset.classes[i] for i in shown]
    groups = [dataset.superclasses[dataset.parents[i]] if dataset.parents else "" for i in shown]
    more = len(dataset.classes) > len(shown)
    note = f"{len(shown)} of {len(dataset.classes):,} classes, spread evenly" if more else ""
    means = class_means(dataset.train, shown)
    figures = {
        "samples": draw_samples([training[some].images for some in chosen], names, groups, note),
        "augmentation": _draw_augmentation(setup, chosen, names),
        "means": draw_means(means, names, groups, note),
    }
    counts = {name: each for name, each in class_counts(dataset).items() if len(set(each)) > 1}
    if counts:
        figures["counts"] = draw_counts(counts, dataset.classes)
    return [_write(expanded(out) / f"{name}.png", to_png(f)) for name, f in figures.items()]


def trained_on(setup: Setup, dataset: Dataset) -> Split:
    """Return the training pictures of a setup, with the labels of the dataset."""
    config = setup.config
    if dataset.validation is not None:
        return dataset.train
    labels = dataset.with_labels(config.labels).train.labels
    numbers = Split(torch.arange(len(labels)), labels)  # numbers in the pictures' place
    kept, _ = hold_out(numbers, config.validation, config.seed)
    return replace(setup.train_split, labels=dataset.train.labels[kept.images])


def choose_classes(dataset: Dataset) -> list[int]:
    """Return the classes to show, by superclass: all of them, or 100 spread evenly."""
    count = len(dataset.classes)
    order = sorted(range(count), key=lambda i: (dataset.parents[i] if dataset.parents else 0, i))
    return [order[i] for i in _spread(count, CLASSES)]


def choose_pictures(split: Split, classes: Sequence[int]) -> list[Tensor]:
    """Return places in the split, (at most K,) int64 for each class, spread evenly over it.

    K is 6 of many classes and up to 12 of few.
    """
    most = max(6, min(12, 600 // len(classes)))
    members = [(split.labels == label).nonzero()[:, 0] for label in classes]
    return [places[_spread(len(places), most)] for places in members]


def _spread(count: int, most: int) -> list[int]:
    """Return 0..count-1, or so many of them, evenly spaced."""
    shown = min(count, most)
    return [i * count // shown for i in range(shown)]


def class_counts(dataset: Dataset) -> dict[str, list[int]]:
    """Return how many training and how many test pictures each class has."""
    splits = {"training": dataset.train, "test": dataset.test}
    classes = len(dataset.classes)
    return {
        name: torch.bincount(s.labels, minlength=classes).tolist() for name, s in splits.items()
    }


def class_means(split: Split, classes: Sequence[int]) -> Tensor:
    """Return the mean picture of each class, (C, 3, H, W) uint8; white where there is none."""
    means = []
    for label in classes:
        members = split.select((split.labels == label).nonzero()[:, 0])
        total = torch.zeros(split.store.shape[1:], dtype=torch.float64)
        for part in members.parts():
            total += part.sum(0, dtype=torch.float64)
        mean = (total / len(members)).round() if len(members) else torch.tensor(255.0)
        means.append(mean.expand(split.store.shape[1:]).to(torch.uint8))
    return torch.stack(means)


def augmented(setup: Setup, chosen: Tensor, epochs: int, size: int) -> Tensor:
    """Return training pictures just as the first epochs of a setup see them, turn after turn.

    Where pictures are drawn by their classes, one may have several turns in an epoch, or none.

    Args:
        setup: whose training pictures and augmentation.
        chosen: (P,) int64, places in its training split.
        epochs: how many, from the first.
        size: side in pixels.

    Returns:
        (P, epochs, 3, size, size) uint8: the first turns; white where a picture has no more.
    """
    side = setup.train_split.store.shape[-1]
    found = torch.full((len(chosen), epochs, 3, size, size), 255, dtype=torch.uint8)
    turns = [0] * len(chosen)
    for epoch in range(epochs):
        plan = plan_epoch(setup.train_split.labels, side, epoch, setup.config)
        order = plan.order[: setup.epoch_pictures]
        rows, at = (chosen[:, None] == order).nonzero(as_tuple=True)
        pictures = setup.train_split[chosen[rows]]
        images, _ = augment(pictures.images, pictures.labels, plan[at])
        images = to_pixels(prepare(images, *setup.channels, size), *setup.channels)
        for row, image in zip(rows.tolist(), images, strict=True):
            if turns[row] < epochs:
                found[row, turns[row]] = image
                turns[row] += 1
    return found


def to_pixels(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo what `prepare` does to values: from (B, C, H, W) of network input to uint8.

    Nothing is clipped: resizing is an average, so no value leaves 0..255 by more than rounding
    takes back.
    """
    return (255 * (x * std.view(-1, 1, 1) + mean.view(-1, 1, 1))).round().to(torch.uint8)


def _draw_augmentation(setup: Setup, chosen: Sequence[Tensor], names: Sequence[str]) -> Figure:
    """Draw a few of the chosen pictures of each class beside their augmented versions."""
    config = setup.config
    filled = [i for i, places in enumerate(chosen) if len(places)]
    rows = [filled[i] for i in _spread(len(filled), AUGMENTED)]
    some = {i: chosen[i][: AUGMENTED // len(rows)] for i in rows}
    places = torch.cat(list(some.values()))
    originals = setup.train_split[places].images
    sizes = sorted(set(setup.sizes))
    epochs = max(1, VERSIONS // len(sizes))
    how = "epoch after epoch"
    if config.balance == "sampling":
        how = f"as {epochs} epochs draw them by class"
    return draw_augmentation(
        originals,
        {size: augmented(setup, places, epochs, size) for size in sizes},
        [names[i] for i, of_one in some.items() for _ in of_one],
        f"Training pictures as {config.name} augments them",
        f"{how}: {describe(config, originals.shape[-1])}",
    )


def _write(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    save_file(path, content)
    return path
