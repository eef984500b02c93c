"""`hundredfold explore`."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.table import Table

from hundredfold.augment import channel_stats
from hundredfold.cli.lookup import look_up
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_data
from hundredfold.experiments.explore import choose_classes, class_counts, explore
from hundredfold.recipes import RECIPES
from hundredfold.support.console import console, escape, whole
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
    """Show the data before training: numbers in the terminal, pictures in a folder.

    Args:
        data: Which data, as --data of train.
        recipe: Whose augmentation to show.
        out: Folder for the pictures.
    """
    config = look_up("recipe", recipe, RECIPES)()
    dataset = load_data(data)
    paths = explore(dataset, config, out)
    console.print(facts_table(dataset))
    for path in paths:
        console.print(f"{path.stem.capitalize():14}{escape(str(path))}")
    for sentence in not_shown(dataset):
        console.print(escape(sentence))


def not_shown(dataset: Dataset) -> list[str]:
    """Return, in sentences, what of a dataset the pictures do not show."""
    sentences, classes, shown = [], len(dataset.classes), len(choose_classes(dataset))
    if shown < classes:
        sentences.append(
            f"Samples and means show {shown} of the {classes:,} classes, spread evenly; "
            f"the other {classes - shown:,} are in the counts alone."
        )
    counts = class_counts(dataset)
    equal = [
        plural(each[0], f"{name} picture") for name, each in counts.items() if len(set(each)) == 1
    ]
    if equal:
        sentences.append(f"Every class has {' and '.join(equal)}: no chart shows that.")
    return sentences


def facts_table(dataset: Dataset) -> Table:
    """Return what the data is in numbers, a column a split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(escape(dataset.source))
    table.add_column("training", justify="right")
    table.add_column("test", justify="right")
    counts = class_counts(dataset)
    training = _facts(dataset.train, counts["training"], dataset.parents)
    test = _facts(dataset.test, counts["test"], dataset.parents)
    for name, value in training.items():
        table.add_row(name, value, test[name])
    return whole(table)


def _facts(split: Split, counts: Sequence[int], parents: Sequence[int]) -> dict[str, str]:
    present = [i for i, count in enumerate(counts) if count]
    height, width = split.store.shape[-2:]
    median = f"{statistics.median(counts):,.1f}".removesuffix(".0")
    mean, std = (", ".join(f"{v:.4f}" for v in part) for part in channel_stats(split.parts()))
    return {
        "pictures": f"{len(split):,}",
        "size in pixels": f"{width} x {height}",
        "classes": f"{len(present):,}",
        "superclasses": f"{len({parents[i] for i in present}) if parents else 0:,}",
        "a class: min / median / max": f"{min(counts):,} / {median} / {max(counts):,}",
        "mean of R, G, B (0..1)": mean,
        "std of R, G, B (0..1)": std,
    }
