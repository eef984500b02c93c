"""Measure recipe `gpu` over many seeds, and the fastest public method on the same GPU.

    python benchmarks/gpu.py --seeds 20 --save

Both use the test set once per seed, at the end, with a single view. Both are timed as in the
contest of that method: from pictures in the computer's memory to a trained network, without testing
and without writing files. Each trains once before without being timed, since that method compiles
then, and a GPU needs to warm up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import tyro
from common import save_result, spread
from speedrun import Speedrun

from hundredfold import Dataset, gpu, load_data, measure, predict_logits
from hundredfold.support.environment import device_name
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

CUDA = torch.device("cuda")
WARM = 1000
"""Seed of the trainings that are not timed."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 20
    """Number of trainings of `gpu`, with seeds 0, 1, ..."""
    peers: int = 10
    """Number of trainings of the public method and of `gpu --compile`, each after one of `gpu`."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ours(dataset: Dataset, seed: int, *, compiled: bool) -> dict[str, float]:
    """Train with recipe `gpu`; return the accuracy and the time."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    setup = make_setup(gpu(seed=seed, compile=compiled), dataset, CUDA)
    state = first_state(setup)
    list(train_epochs(state, setup))
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    logits = predict_logits(state.model, dataset.test.images, setup.info)
    metrics = measure(logits, dataset.test.labels, "fine", dataset.parents)
    return {"fine": metrics["fine_top1"], "coarse": metrics["coarse_top1"], "seconds": seconds}


def main() -> None:
    """Measure, print and save."""
    options = tyro.cli(Options)
    dataset = load_data("cifar100")
    ways: dict[str, Callable[[int], dict[str, float]]] = {
        "gpu": partial(ours, dataset, compiled=False),
        "gpu --compile": partial(ours, dataset, compiled=True),
        "public": Speedrun(dataset).run,
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for name, way in ways.items():
        started = time.perf_counter()
        print("warm:", name, way(WARM), f"{time.perf_counter() - started:.1f} s", flush=True)
    for seed in range(options.seeds):
        for name, way in ways.items():
            if name == "gpu" or seed < options.peers:
                found[name].append(way(seed))
                print(seed, name, found[name][-1], flush=True)
    figures: dict[str, Any] = {
        name: {key: spread([run[key] for run in runs]) for key in runs[0]}
        for name, runs in found.items()
    }
    for name in ("gpu", "gpu --compile"):
        pairs = zip(found["public"], found[name], strict=False)
        ratios = [theirs["seconds"] / our["seconds"] for theirs, our in pairs]
        figures[name]["public seconds / ours"] = spread(ratios)
    figures["card"] = device_name(CUDA)
    print(figures)
    if options.save:
        save_result("gpu", "test set used once per seed, at the end", figures)


if __name__ == "__main__":
    main()
