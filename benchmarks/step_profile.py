"""Time the parts of a training step: data, forward, backward, optimizer; and evaluation.

python benchmarks/step_profile.py --recipes fast strong --save
"""

import itertools
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from common import save_result

from hundredfold import load_cifar100
from hundredfold.augment import prepare
from hundredfold.inference.logits import predict_logits
from hundredfold.recipes import RECIPES
from hundredfold.support.device import keep_memory
from hundredfold.training.batches import batches
from hundredfold.training.optim import set_schedule
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

STAGES = ("crop and flip", "normalise and resize", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipes: tuple[str, ...] = ("quick", "fast", "strong")
    """Names of the recipes."""
    steps: int = 8
    """Number of measured steps at each size, after two that are not measured."""
    save: bool = False
    """Write the result to benchmarks/results."""


def profile(name: str, size: int, steps: int) -> dict[str, float]:
    """Return the median time of each part of a step at a size, and of evaluating 1,000 pictures.

    Times are in seconds. The parts are those of `loop.train_step`, one after the other.
    """
    keep_memory()  # as in training
    config = RECIPES[name](device="cpu")
    dataset = load_cifar100().with_labels(config.labels)
    setup = make_setup(config, dataset, torch.device("cpu"))
    state = first_state(setup)
    model, optimizer = state.model.train(), state.optimizer
    rows: list[list[float]] = []
    source = batches(setup, 0)
    for number in range(steps + 2):
        times = [time.perf_counter()]
        images, labels = next(source)
        times.append(time.perf_counter())
        x = prepare(images, *setup.channels, size)
        times.append(time.perf_counter())
        loss = F.cross_entropy(model(x), labels, label_smoothing=config.label_smoothing)
        times.append(time.perf_counter())
        optimizer.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        set_schedule(optimizer, number, setup.steps, schedule=config.schedule, warmup=config.warmup)
        optimizer.step()
        times.append(time.perf_counter())
        rows.append([end - start for start, end in itertools.pairwise(times)])
    medians = map(statistics.median, zip(*rows[2:], strict=True))
    started = time.perf_counter()
    predict_logits(model, dataset.test.images[:1000], setup.info)
    evaluation = time.perf_counter() - started
    return dict(zip(STAGES, medians, strict=True)) | {"evaluation of 1,000": evaluation}


def main() -> None:
    """Measure, print a row for each recipe and size, and save."""
    options = tyro.cli(Options)
    rows: list[dict[str, Any]] = []
    for name in options.recipes:
        config = RECIPES[name]()
        for size in config.sizes or (32,):
            parts = profile(name, size, options.steps)
            step = sum(parts[stage] for stage in STAGES)
            data = (parts[STAGES[0]] + parts[STAGES[1]]) / step
            figures = {part: round(seconds, 4) for part, seconds in parts.items()}
            figures |= {"step": round(step, 4), "data share": round(data, 4)}
            rows.append({"recipe": name, "size": size, "batch": config.batch_size, **figures})
            print(json.dumps(rows[-1]), flush=True)
    if options.save:
        what = "median seconds of the parts of a step, and of evaluating 1,000 pictures at 32 px"
        save_result("profile", what, {"rows": rows})


if __name__ == "__main__":
    main()
