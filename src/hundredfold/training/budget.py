"""From a time budget to a schedule: measure the machine for a moment, then plan."""

import dataclasses
import statistics
import time

from hundredfold.config import Config, parse_duration
from hundredfold.data.dataset import Dataset
from hundredfold.inference.logits import BATCH, predict_logits
from hundredfold.recipes import CIFAR_PICTURES
from hundredfold.support.device import pick_device
from hundredfold.support.errors import UserError
from hundredfold.training.batches import batches
from hundredfold.training.clock import Clock, mean_seconds
from hundredfold.training.cuda_graphs import WARM
from hundredfold.training.loop import step
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

FEWEST_STEPS = 10
"""Steps of a schedule that is still worth its name."""
PROBING, MOST_PROBING = 0.02, 10.0
"""Share of the budget, and seconds, that measuring steps may take beyond the first two; predicting
as well."""
LADDER = (("strong", 45.0), ("medium", 12.0), ("fast", 2.6), ("quick", 0.0))
"""Recipes, and from how many epochs of `fast` in the budget on each is the best: of CIFAR-100, or
of as many pictures that are repeated."""


def choose_recipe(config: Config, dataset: Dataset) -> str:
    """Return the name of the recipe that makes most of a budget on this machine.

    Args:
        config: recipe `fast` with the budget.
        dataset: what to train on.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        config = dataclasses.replace(config, batch_size=64, optimizer="sgd")  # a moment's work
    setup = make_setup(config, dataset.with_labels(config.labels), device)
    seconds = mean_seconds(0.0, seconds_by_size(first_state(setup), setup))
    epochs = setup.config.epochs * parse_duration(config.budget) / (seconds * setup.steps)
    epochs *= len(setup.training) / CIFAR_PICTURES
    return next(name for name, least in LADDER if epochs >= least)


def plan(setup: Setup, tests: int, started: float) -> tuple[Setup, Clock]:
    """Return the setup with as many epochs as its budget should allow, and the clock to follow.

    Args:
        setup: with a `budget` in its configuration.
        tests: number of test pictures, each of which is looked at twice in the end.
        started: reading of time.perf_counter when the budget began.

    Raises:
        UserError: the budget has no room for a few steps and the test.
    """
    config = setup.config
    budget = parse_duration(config.budget)
    probe = first_state(setup)
    limit = min(PROBING * budget, MOST_PROBING)
    seconds = seconds_by_size(probe, setup, limit)
    reserve = evaluation_seconds(probe, setup, 2 * tests + len(setup.judged), limit)
    now, mean = time.perf_counter(), mean_seconds(0.0, seconds)
    end = started + budget - reserve
    steps = (end - now) / mean
    if steps < FEWEST_STEPS:
        least = now - started + FEWEST_STEPS * mean + reserve
        raise UserError(
            f"--budget {config.budget} is too short here: this network needs some {least:.0f} s on "
            "this machine. Give it more, or smaller --widths."
        )
    config = dataclasses.replace(config, epochs=config.epochs * steps / setup.steps)
    return dataclasses.replace(setup, config=config), Clock(end, seconds)


def seconds_by_size(probe: State, setup: Setup, limit: float = 0.0) -> tuple[float, ...]:
    """Return how long a step takes at each of the setup's sizes: the first measured, then by area.

    Args:
        probe: a state to take steps with, for nothing but their time.
        setup: what to train on, and how.
        limit: seconds that measuring may take; at least one step is measured, after one unmeasured,
            or those in which a GPU's are recorded.
    """
    times: list[float] = []
    first = WARM + 1 if setup.recorded else 1
    started = time.perf_counter()
    whole = min(setup.config.batch_size, len(setup.training))
    for images, labels in batches(setup.training, 0, setup.config, setup.device):
        if len(labels) < whole:  # the last one is no measure of a step
            break
        before = time.perf_counter()
        step(probe, setup, images, labels)[0].item()  # to have its value is to have waited for it
        times.append(time.perf_counter() - before)
        if len(times) > first and time.perf_counter() - started > limit:
            break
    return tuple(min(times[first:] or times) * (size / setup.sizes[0]) ** 2 for size in setup.sizes)


def evaluation_seconds(probe: State, setup: Setup, pictures: int, limit: float = 0.0) -> float:
    """Return about how long predicting that many pictures will take.

    Args:
        probe: its model is asked.
        setup: what it is trained on.
        pictures: how many.
        limit: seconds that measuring may take; at least one batch is measured, after one that is
            not, since the first is slower.
    """
    model, images = probe.model, setup.training[:BATCH].images
    predict_logits(model, images, setup.info)
    times: list[float] = []
    while not times or sum(times) < limit:
        started = time.perf_counter()
        predict_logits(model, images, setup.info)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * pictures / len(images)
