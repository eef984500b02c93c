"""`hundredfold explore`."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.cli.lookup import look_up
from hundredfold.data.addresses import without_key
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_to_train
from hundredfold.experiments.explore import (
    choose_classes,
    class_counts,
    explore,
    unequal_counts,
)
from hundredfold.recipes import RECIPES
from hundredfold.support.console import console, escape, make_table
from hundredfold.support.text import plural


def main(arguments: Sequence[str]) -> None:
    """Show the data before training."""
    tyro.cli(explore_data, prog="hundredfold explore", args=arguments)


def explore_data(
    data: Annotated[str, tyro.conf.Positional] = "auto",
    /,
    recipe: str = "fast",
    out: Path = Path("explore"),
) -> None:
    """Show the data before training: numbers in the terminal, pictures on an HTML page.

    Args:
        data: The data, as --data of train.
        recipe: The recipe whose augmentation is shown.
        out: Folder for the page, explore.html.
    """
    config, dataset = load_to_train(look_up("recipe", recipe, RECIPES)(data=data))
    path = explore(dataset, config, out)
    show_facts(dataset)
    console.print(f"Page    {escape(str(path))}")
    for sentence in not_shown(dataset):
        console.print(escape(sentence))


def not_shown(dataset: Dataset) -> list[str]:
    """Return sentences that say what the page does not show."""
    sentences, classes, shown = [], len(dataset.classes), len(choose_classes(dataset))
    if shown < classes:
        sentences.append(f"The page shows {shown} of the {classes:,} classes, spread evenly.")
    unequal = unequal_counts(dataset)
    equal = [
        plural(counts[0], f"{name} picture")
        for name, counts in class_counts(dataset).items()
        if name not in unequal
    ]
    if equal:
        sentences.append(f"Every class has {' and '.join(equal)}, so the page does not list them.")
    return sentences


def show_facts(dataset: Dataset) -> None:
    """Print a table of numbers about the data, a column for each split."""
    counts = class_counts(dataset)
    training = _facts(dataset.train, counts["training"], dataset.parents)
    test = _facts(dataset.test, counts["test"], dataset.parents)
    rows = [(name, value, test[name]) for name, value in training.items()]
    console.print(make_table([without_key(dataset.source), "training", "test"], rows))


def _facts(split: Split, counts: Sequence[int], parents: Sequence[int]) -> dict[str, str]:
    present = [i for i, count in enumerate(counts) if count]
    height, width = split.store.shape[-2:]
    median = f"{statistics.median(counts):,.1f}".removesuffix(".0")
    mean, std = (
        ", ".join(f"{value:.4f}" for value in channels) for channels in split.channel_stats()
    )
    return {
        "pictures": f"{len(split):,}",
        "size in pixels": f"{width} x {height}",
        "classes": f"{len(present):,}",
        "superclasses": f"{len({parents[i] for i in present}) if parents else 0:,}",
        "pictures per class: min / median / max": f"{min(counts):,} / {median} / {max(counts):,}",
        "mean of R, G, B (0..1)": mean,
        "std of R, G, B (0..1)": std,
    }
