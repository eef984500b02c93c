"""From a time budget to a schedule: measure the speed of the machine, then plan."""

import dataclasses
import statistics
import time

from hundredfold.config import Config
from hundredfold.data.dataset import Dataset
from hundredfold.inference.logits import batch_size, predict_logits
from hundredfold.support.device import keep_memory, pick_device
from hundredfold.support.errors import UserError
from hundredfold.support.units import parse_duration
from hundredfold.training.batches import batches
from hundredfold.training.clock import Clock, mean_seconds
from hundredfold.training.cuda_graphs import WARM_UP_STEPS
from hundredfold.training.fitting import CIFAR_PICTURES, MOST_TUNING_EPOCHS
from hundredfold.training.interpolate import TRIES
from hundredfold.training.known import SAMPLE
from hundredfold.training.loop import train_step
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

FEWEST_STEPS = 10
"""Fewest steps of a schedule."""
PROBE_SHARE, MOST_PROBE_SECONDS = 0.02, 10.0
"""Share of the budget, and time in seconds, that measuring steps may take after the first two.
Measuring predictions may take as much."""
LADDER = (("strong", 78.0), ("medium", 17.0), ("fast", 2.4), ("quick", 0.0))
"""Recipes, and the number of epochs of `fast` that the budget must allow for each to be the best.
An epoch here has as many pictures as one of CIFAR-100, some of which may be repeats."""


def choose_recipe(config: Config, dataset: Dataset) -> str:
    """Return the name of the recipe that is most accurate within a budget on this machine.

    Args:
        config: recipe `fast` with the budget.
        dataset: the dataset to train on.
    """
    device = pick_device(config.device)
    setup = make_setup(config, dataset.with_labels(config.labels), device)
    seconds = mean_seconds(0.0, seconds_by_size(first_state(setup, pretrained=False), setup))
    epochs = setup.config.epochs * parse_duration(config.budget) / (seconds * setup.steps)
    epochs *= len(setup.train_split) / CIFAR_PICTURES
    return next(name for name, least in LADDER if epochs >= least)


def plan_budget(setup: Setup, tests: int, started: float) -> tuple[Setup, Clock | None]:
    """Return the setup with as many epochs as its budget should allow, and its clock.

    A pretrained model is trained for at most MOST_TUNING_EPOCHS, without a clock then. If not even
    a few steps fit, only its head is trained.

    Args:
        setup: its configuration has a `budget`.
        tests: number of test pictures, each of which is predicted twice at the end.
        started: reading of time.perf_counter at the start of the budget.

    Raises:
        UserError: the budget is too short for a few steps and the test.
    """
    config = setup.config
    budget = parse_duration(config.budget)
    probe = first_state(setup, pretrained=False)
    limit = min(PROBE_SHARE * budget, MOST_PROBE_SECONDS)
    seconds = seconds_by_size(probe, setup, limit)
    validations = 1 + TRIES if config.weights else 1  # after the last epoch, and of means
    predictions = 2 * tests + validations * len(setup.validation_split)
    if config.weights:  # how familiar pictures look
        predictions += min(SAMPLE, len(setup.train_split)) + len(setup.validation_split)
    reserve = evaluation_seconds(probe, setup, predictions, limit)
    now, mean = time.perf_counter(), mean_seconds(0.0, seconds)
    end = started + budget - reserve
    steps = (end - now) / mean
    epochs = config.epochs * steps / setup.steps
    if config.weights and (steps < FEWEST_STEPS or epochs > MOST_TUNING_EPOCHS):
        epochs = MOST_TUNING_EPOCHS if epochs > MOST_TUNING_EPOCHS else 0.0
        return dataclasses.replace(setup, config=dataclasses.replace(config, epochs=epochs)), None
    if steps < FEWEST_STEPS:
        least = now - started + FEWEST_STEPS * mean + reserve
        raise UserError(
            f"--budget {config.budget} is too short here: this network needs about {least:.0f} s "
            "on this machine. Use a larger budget, or smaller --widths."
        )
    config = dataclasses.replace(config, epochs=epochs)
    return dataclasses.replace(setup, config=config), Clock(end, seconds)


def seconds_by_size(probe: State, setup: Setup, limit: float = 0.0) -> tuple[float, ...]:
    """Return the time of a step in seconds at each of the setup's sizes.

    The time at the first size is measured; the others follow from the area of the pictures.

    Args:
        probe: a state that is used only to measure steps.
        setup: what stays the same during training.
        limit: time in seconds that measuring may take. At least one step is measured, after one
            that is not, or after those with which a GPU records a step.
    """
    if setup.device.type == "cpu":
        keep_memory()  # as in training
    times: list[float] = []
    first = WARM_UP_STEPS + 1 if setup.uses_cuda_graphs else 1
    started = last = time.perf_counter()
    full = min(setup.config.batch_size, len(setup.train_split))
    for images, labels in batches(setup, 0):
        if len(labels) < full:  # a smaller batch would be measured as too fast
            break
        loss, _ = train_step(probe, setup, images, labels)
        loss.item()  # wait for a GPU to finish the step
        now = time.perf_counter()
        times.append(now - last)  # with decoding and augmentation
        last = now
        if len(times) > first and now - started > limit:
            break
    return tuple(min(times[first:] or times) * (size / setup.sizes[0]) ** 2 for size in setup.sizes)


def evaluation_seconds(probe: State, setup: Setup, pictures: int, limit: float = 0.0) -> float:
    """Return approximately how long it will take to predict a number of pictures, in seconds.

    Args:
        probe: a state whose model is used.
        setup: what stays the same during training.
        pictures: number of pictures to predict.
        limit: time in seconds that measuring may take. At least one batch is measured, after one
            that is not, because the first is slower.
    """
    model, batch = probe.model, batch_size(setup.info)
    images = setup.train_split[:batch].images
    predict_logits(model, images, setup.info)
    times: list[float] = []
    while not times or sum(times) < limit:
        started = time.perf_counter()
        predict_logits(model, images, setup.info)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * pictures / len(images)
