"""`hundredfold train`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import tyro

from hundredfold.cli import resume
from hundredfold.cli.log_options import LogOptions, train_with_trackers
from hundredfold.cli.recipe import parse, split_name
from hundredfold.config import Config
from hundredfold.data.load import load_to_train
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.support.errors import UserError
from hundredfold.training.budget import choose_recipe
from hundredfold.training.resume import resume as resume_run
from hundredfold.training.resume import run_before_restart
from hundredfold.training.train import train


@dataclass(frozen=True)
class TrainOptions:
    """The configuration of a run, and its output."""

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration. The defaults are those of the recipe."""
    logs: tyro.conf.OmitArgPrefixes[LogOptions] = field(default_factory=LogOptions)
    """What the terminal shows, and which trackers record the run."""


def main(arguments: Sequence[str]) -> None:
    """Train a recipe; its values are the defaults of the flags."""
    if "--resume" in arguments:
        if arguments[0] != "--resume":
            raise UserError(
                "A resumed run keeps its recipe and configuration. Use `train --resume RUN` alone, "
                "or `resume RUN`."
            )
        resume.main(arguments[1:])
        return
    with join_processes() as processes:
        _train(arguments, processes)


def _train(arguments: Sequence[str], processes: Processes) -> None:
    name, flags = split_name(arguments)
    options = parse(TrainOptions, "train", name, flags)
    config, display = options.config, options.logs.display()
    if run := run_before_restart(config.out, processes):
        if run.finished:
            display.note(f"{run} is finished already.")
            return
        data = run.config().data  # from the flags of this launch
        train_with_trackers(
            lambda trackers: resume_run(run, data, display=display, trackers=trackers),
            options.logs.trackers(display.note),
            data,
        )
        return
    with processes.main_process_first():
        config, dataset = load_to_train(config, display.note)
    started = None
    if config.budget and flags is arguments:  # the command line names no recipe
        started = time.perf_counter()  # the budget includes the choice
        name = choose_recipe(config, dataset)
        config = replace(parse(TrainOptions, "train", name, flags).config, fit=dataset.fit)
    train_with_trackers(
        lambda trackers: train(
            config, dataset, display=display, trackers=trackers, started=started
        ),
        options.logs.trackers(display.note),
        dataset,
    )
