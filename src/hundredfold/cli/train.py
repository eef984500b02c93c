"""`hundredfold train`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from hundredfold.cli import resume
from hundredfold.cli.logs import Logs, trained
from hundredfold.cli.recipe import parse, split_name
from hundredfold.config import Config
from hundredfold.data.load import load_data
from hundredfold.support.distributed import Processes, joined
from hundredfold.support.errors import UserError
from hundredfold.training.budget import choose_recipe
from hundredfold.training.resume import resume as resume_run
from hundredfold.training.resume import run_before_restart
from hundredfold.training.train import train


@dataclass(frozen=True)
class TrainOptions:
    """A recipe's values, and how its training is shown."""

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration."""
    logs: tyro.conf.OmitArgPrefixes[Logs] = field(default_factory=Logs)
    """The terminal."""


def main(arguments: Sequence[str]) -> None:
    """Train a recipe: its values are the flags' defaults."""
    if "--resume" in arguments:
        if arguments[0] != "--resume":
            raise UserError(
                "A resumed run keeps its recipe and configuration: train --resume RUN, without "
                "others, or resume RUN."
            )
        resume.main(arguments[1:])
        return
    with joined() as processes:
        _train(arguments, processes)


def _train(arguments: Sequence[str], processes: Processes) -> None:
    name, flags = split_name(arguments)
    options = parse(TrainOptions, "train", name, flags)
    config, display = options.config, options.logs.display()
    if run := run_before_restart(config.out, processes):
        if run.finished:
            display.note(f"{run} is finished already.")
            return
        data = run.config().data  # which this launch named
        trained(
            lambda trackers: resume_run(run, data, display=display, trackers=trackers),
            options.logs.trackers(display.note),
            data,
        )
        return
    with processes.first_alone():
        dataset = load_data(config.data, display.note, size=config.size, strict=config.strict)
    started = None
    if config.budget and flags is arguments:  # no recipe was named
        started = time.perf_counter()  # choosing counts
        name = choose_recipe(config, dataset)
        config = parse(TrainOptions, "train", name, flags).config
    trained(
        lambda trackers: train(
            config, dataset, display=display, trackers=trackers, started=started
        ),
        options.logs.trackers(display.note),
        dataset,
    )
