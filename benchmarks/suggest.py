"""Measure how many labels `hundredfold suggest` saves, with a head on features as in `probe`.

python benchmarks/suggest.py PHOTOS/clothing --target 0.85 --save

The first pictures are drawn at random. Then, in each round, either the suggested pictures or random
ones are labelled and a head is fitted to all that have labels. Accuracy is that on the test
pictures. The way of choosing was decided on other sets, without test pictures (docs/LOG.md).
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from common import save_result, spread
from torch import Tensor

from hundredfold.evaluation.suggest import choose_unsure_and_different
from hundredfold.inference.features import cached_features, feature_network
from hundredfold.metrics.scores import top_k
from hundredfold.models.logistic import fit_heads
from hundredfold.pictures.load import load_parts
from hundredfold.support.device import keep_memory, placed
from hundredfold.training.head import DEFAULT_STRENGTH

Choose = Callable[[Tensor, Tensor, int, torch.Generator], list[int]]


def suggested(features: Tensor, probabilities: Tensor, count: int, _: torch.Generator) -> list[int]:
    """Return the pictures that `hundredfold suggest` names."""
    return choose_unsure_and_different(features, probabilities, count)


def at_random(features: Tensor, _: Tensor, count: int, rng: torch.Generator) -> list[int]:
    """Return random pictures."""
    return torch.randperm(len(features), generator=rng)[:count].tolist()


WAYS: Mapping[str, Choose] = {"suggested": suggested, "random": at_random}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a set of photos with split.csv."""
    target: float = 0.85
    """Accuracy to reach (0..1)."""
    step: int = 25
    """Number of pictures that are labelled before each training."""
    most: int = 600
    """Number of labels after which to stop."""
    seeds: int = 5
    """Number of seeds, 0, 1, ..."""
    save: bool = False
    """Write the figures to benchmarks/results/."""


def load_features(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (N, D), labels (N,) int64, and which pictures are of the test split (N,)."""
    with (folder / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["class"] for row in rows})
    keep_memory()
    network, info = feature_network()
    model = placed(network, torch.device("cpu"))
    parts = load_parts([folder / row["path"] for row in rows], info.image_size)
    labels = torch.tensor([classes.index(row["class"]) for row in rows])
    test = torch.tensor([row["split"] == "test" for row in rows])
    return cached_features(model, parts, info), labels, test


def learn(data: tuple[Tensor, Tensor, Tensor], choose: Choose, options: Options, seed: int) -> Any:
    """Return the test accuracy (0..1) by the number of labels."""
    features, labels, test = data
    classes, rng = int(labels.max()) + 1, torch.Generator().manual_seed(seed)
    pool = (~test).nonzero()[:, 0]
    pool = pool[torch.randperm(len(pool), generator=rng)]
    known, pool = pool[: options.step], pool[options.step :]
    curve: dict[int, float] = {}
    while True:
        (head,) = fit_heads(features[known], labels[known], classes, (DEFAULT_STRENGTH,))
        curve[len(known)] = top_k(head(features[test]), labels[test], 1)
        if len(known) + options.step > options.most:
            return curve
        rows = features[pool]
        chosen = choose(rows, head(rows).softmax(1), options.step, rng)
        left = torch.ones(len(pool), dtype=torch.bool)
        left[chosen] = False
        known, pool = torch.cat([known, pool[chosen]]), pool[left]


def needed(curve: Mapping[int, float], target: float) -> int:
    """Return the smallest number of labels from which on three trainings reach an accuracy.

    One training alone may reach it by chance. If none does, return the largest number.
    """
    counts = list(curve)
    for place in range(len(counts) - 2):
        if all(curve[count] >= target for count in counts[place : place + 3]):
            return counts[place]
    return counts[-1]


def main(options: Options) -> None:
    """Measure each way with each seed."""
    data, rows = load_features(options.folder), {}
    for name, choose in WAYS.items():
        curves = [learn(data, choose, options, seed) for seed in range(options.seeds)]
        rows[name] = {
            "labels needed": spread([needed(curve, options.target) for curve in curves]),
            "accuracy": {count: spread([c[count] for c in curves]) for count in curves[0]},
        }
        found = rows[name]["labels needed"]
        print(f"{name:10} {found['mean']:.0f} (std {found['std']:.0f}) labels for", options.target)
        for count in (100, 200, 300, 400, options.most):
            print(f"{count:8} labels: {rows[name]['accuracy'][count]['mean']:.2%}", flush=True)
    if options.save:
        what = f"labels needed for {options.target:.0%}, and test accuracy by number of labels"
        save_result("suggest", what, {"set": options.folder.name, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
