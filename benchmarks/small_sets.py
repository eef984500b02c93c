"""Train `fast` on few pictures with the learning rate of CIFAR-100, and with that of `fitted`.

python benchmarks/small_sets.py PHOTOS/clothing PHOTOS/hand-signs --save

Each folder has a file split.csv with columns path, split and class. Networks are evaluated on the
validation pictures; the test pictures are not used.
"""

import csv
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import tyro
from common import save_result, spread

from hundredfold import Dataset, fast, load_data, measure, predict_logits
from hundredfold.training.fitting import fitted
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

WHAT = "recipe fast on few photos, 60 epochs, evaluated on pictures that are not test pictures"
CPU = torch.device("cpu")
HELD_OUT = 330
"""Number of training pictures used for validation, if a set has no validation pictures."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of the sets of photos."""
    pictures: tuple[int, ...] = (4, 20, 57, 250, 1000)
    """Numbers of training pictures, drawn as evenly from all classes as possible; four pictures are
    from two classes."""
    size: int = 32
    """Side of the pictures in pixels."""
    seeds: int = 3
    """Number of seeds for each, 0, 1, ..."""
    save: bool = False
    """Write the result to benchmarks/results."""


def subset(folder: Path, pictures: int, size: int) -> Dataset:
    """Return a number of training pictures of a set, with its validation pictures as test split."""
    rows = list(csv.DictReader((folder / "split.csv").open()))
    training = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    random.Random(0).shuffle(training)
    if not validation:
        validation, training = training[:HELD_OUT], training[HELD_OUT:]
    members = defaultdict(list)
    for row in training:
        members[row["class"]].append(row)
    classes = sorted(members)[: 2 if pictures == 4 else None]
    rounds = [members[name][i] for i in range(1000) for name in classes if i < len(members[name])]
    chosen = [(row, "train") for row in rounds[:pictures]]
    chosen += [(row, "test") for row in validation if row["class"] in classes]
    with TemporaryDirectory() as name:
        table = Path(name) / "list.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "split", "class"])
            for row, split in chosen:
                writer.writerow([(folder / row["path"]).resolve(), split, row["class"]])
        return load_data(str(table), lambda _: None, size=size)


def trained(dataset: Dataset, lr: float, seed: int) -> dict[str, float]:
    """Return the final accuracy in percent, the final loss and the highest loss of an epoch."""
    config = fitted(fast(validation=0.0, seed=seed, device="cpu"), len(dataset.train))
    config = fast(**{**vars(config), "lr": lr or config.lr})
    setup = make_setup(config, dataset, CPU)
    state = first_state(setup)
    losses = [epoch.train_loss for epoch in train_epochs(state, setup)]
    logits = predict_logits(state.model, dataset.test.parts(), setup.info)
    found = measure(logits, dataset.test.labels, "fine")
    highest = max(losses[1:])
    return {"fine": 100 * found["fine_top1"], "loss": found["loss"], "highest loss": highest}


def main(options: Options) -> None:
    """Measure, print and save after each row, because measuring takes long."""
    figures: dict[str, Any] = {"size": options.size}
    for folder in options.folders:
        for pictures in options.pictures:
            dataset = subset(folder, pictures, options.size)
            for name, lr in (("as for CIFAR-100", 0.15), ("fitted", 0.0)):
                results = [trained(dataset, lr, seed) for seed in range(options.seeds)]
                key = f"{folder.name}, {pictures} pictures, rate {name}"
                figures[key] = {
                    what: spread([found[what] for found in results]) for what in results[0]
                }
                means = {what: figures[key][what]["mean"] for what in results[0]}
                print(key, means, flush=True)
                if options.save:
                    save_result("small-sets", WHAT, figures)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
