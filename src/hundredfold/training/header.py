"""Describe what is about to be trained, on which data and machine."""

from dataclasses import replace

import torch

from hundredfold.data.addresses import without_key
from hundredfold.metrics.scores import format_metric, learned_top1
from hundredfold.models.architectures import MODELS
from hundredfold.models.build import count_parameters
from hundredfold.runs.epoch import HeadRecord
from hundredfold.support import native
from hundredfold.support.console import duration
from hundredfold.support.environment import device_name
from hundredfold.support.text import plural
from hundredfold.training.setup import Setup, with_precision
from hundredfold.training.state import State


def describe_training(setup: Setup, state: State) -> list[str]:
    """Return lines that say what is about to be trained on which data and machine."""
    config, held_out = setup.config, len(setup.validation_split)
    validation = f", {held_out:,} {config.validate_on}" if held_out else ""
    about = f"{config.budget}: about " if config.budget else ""
    enlarged = ""
    if setup.info.side > setup.info.image_size:
        enlarged = f", enlarged from {setup.info.image_size} to {setup.info.side} px"
    where = device_name(setup.device)
    if setup.device.type == "cpu":
        where += f", {plural(torch.get_num_threads(), 'thread')}"
        if config.model in MODELS and not setup.mixed and not native.available():
            where += ", convolutions not compiled (slower)"
    default = with_precision(replace(config, precision="auto"), setup.device).precision
    if setup.mixed or config.precision != default:
        where += f", {config.precision}"
    if config.precision != default:
        where += f" ({default} is usual here)"
    if setup.processes.size > 1:
        where = f"{setup.processes.size} processes, each on {where}"
    schedule = "only the head is trained"
    if setup.steps:
        steps = plural(setup.steps, "step")
        schedule = f"{about}{plural(config.epochs, 'epoch')}, {steps} of {config.batch_size}"
    lines = [
        f"{without_key(config.data)}: {len(setup.train_split):,} training{validation} pictures, "
        f"{plural(len(setup.info.classes), f'{config.labels} class')}{enlarged}",
        *_describe_balance(setup),
        f"{config.model}{', pretrained' if config.weights else ''}: "
        f"{count_parameters(state.model) / 1e6:.2f} M parameters, seed {config.seed}, {schedule}",
        where,
    ]
    return [*lines, _describe_head(state.head)] if state.head else lines


def _describe_head(head: HeadRecord) -> str:
    """Return a line about the head of a pretrained model."""
    pictures, seconds = plural(head.pictures, "picture"), duration(head.seconds)
    line = f"a linear head on the pretrained features of {pictures} took {seconds}"
    if not head.validation:
        return line
    key = learned_top1(head.validation)
    accuracy = format_metric(key, head.validation[key])
    if head.refitted:
        when = "before it was fitted to the validation pictures as well"
        return f"{line}; {when}, it classified {accuracy} of them correctly"
    return f"{line}; it classifies {accuracy} of the validation pictures correctly"


def _describe_balance(setup: Setup) -> list[str]:
    """Return a line about how classes of unequal size are balanced; none if they are not."""
    counts = setup.train_split.labels.bincount()
    fewest, most = int(counts[counts > 0].min()), int(counts.max())
    if not setup.balances_head or fewest == most:
        return []
    drawn = setup.config.balance == "sampling" and setup.steps
    how = "is drawn equally often" if drawn else "has the same weight in the loss"
    return [f"classes of {fewest:,} to {most:,} pictures: each class {how}"]
