"""Measure checkpoints: size, time to write and to read, and share of a training's time.

python benchmarks/checkpoints.py --save
"""

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import save_result, spread

from hundredfold import load_cifar100
from hundredfold.config import Config
from hundredfold.recipes import RECIPES
from hundredfold.runs.run import Run
from hundredfold.support.units import parse_interval
from hundredfold.training.batches import batches
from hundredfold.training.loop import train_step
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipes: tuple[str, ...] = ("quick", "fast", "strong", "tutorial")
    """Names of the recipes."""
    times: int = 10
    """Number of checkpoints to write for each."""
    save: bool = False
    """Write the result to benchmarks/results."""


def cost(name: str, times: int, folder: Path) -> dict[str, Any]:
    """Return the costs of a recipe's checkpoints, after a step that fills the optimizer's state."""
    config = dataclasses.replace(RECIPES[name](device="cpu"), batch_size=16)
    dataset = load_cifar100().with_labels(config.labels)
    setup = make_setup(config, dataset, torch.device("cpu"))
    state, run = first_state(setup), Run(folder)
    train_step(state, setup, *next(batches(setup, 0)))
    written, read = [], []
    for _ in range(times):
        state.steps_done += 1
        started = time.perf_counter()
        run.save_checkpoint(state.checkpoint(setup))
        written.append(time.perf_counter() - started)
        started = time.perf_counter()
        last = run.newest_checkpoint()
        read.append(time.perf_counter() - started)
        assert last
    size = max(path.stat().st_size for path in (folder / "checkpoints").iterdir())
    seconds, _ = parse_interval(Config().checkpoint)
    share = sum(written) / times / seconds
    return {
        "MiB": round(size / 2**20, 1),
        "seconds to write": spread(written),
        "seconds to read": spread(read),
        "share of training, one a minute": round(share, 5),
    }


def main(options: Options) -> None:
    """Measure and print."""
    found = {}
    for name in options.recipes:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found[name] = cost(name, options.times, Path(folder))
        print(name, found[name])
    if options.save:
        save_result("checkpoints", "cost of a checkpoint, with fsync, on a local disk", found)


if __name__ == "__main__":
    main(tyro.cli(Options))
