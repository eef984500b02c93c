"""`hundredfold train`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import tyro

from hundredfold.cli import resume
from hundredfold.cli.log_options import LogOptions, train_with_trackers
from hundredfold.cli.recipe import parse, split_name
from hundredfold.config import Config
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.support.errors import UserError
from hundredfold.training.choose import choose
from hundredfold.training.choose_fit import Loaded, load_with_best_fit
from hundredfold.training.resume import resume as resume_run
from hundredfold.training.resume import run_before_restart
from hundredfold.training.train import explained_memory, train


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
    with explained_memory(config):
        config, dataset, started = _load(arguments, processes, display.note)
    train_with_trackers(
        lambda trackers: train(
            config, dataset, display=display, trackers=trackers, started=started
        ),
        options.logs.trackers(display.note),
        dataset,
    )


def _load(arguments: Sequence[str], processes: Processes, tell: Callable[[str], None]) -> Loaded:
    """Load the data for the recipe that the command line names, or for one that suits the data."""
    name, flags = split_name(arguments)

    def configure(name: str) -> Config:
        return parse(TrainOptions, "train", name, flags).config

    def unnamed(name: str) -> Config:  # --name would hide the recipe's
        return replace(configure(name), name=name)

    if flags is arguments:  # the command line names no recipe
        if processes.size == 1:
            return choose(configure, tell)
        # The choice depends on the clock, so one process decides for all.
        name = processes.broadcast(lambda: choose(unnamed, tell).config.name)
    with processes.main_process_first():
        return load_with_best_fit(configure(name), tell)
