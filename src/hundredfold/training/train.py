"""Train a classifier: from a configuration to a finished run directory."""

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hundredfold.config import Config, parse_interval
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_data
from hundredfold.evaluation.evaluate import measure_model
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.calibration import fit_temperature
from hundredfold.models.build import count_parameters
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.new_run import new_run
from hundredfold.runs.run import CURVES, Run
from hundredfold.support.console import command
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.support.environment import describe_environment, device_name
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.support.signals import deferred_stop, stop_exception
from hundredfold.support.text import plural
from hundredfold.track.base import Tracker
from hundredfold.track.trackers import start
from hundredfold.training.budget import plan
from hundredfold.training.clock import Clock
from hundredfold.training.loop import Step, training
from hundredfold.training.progress import Display
from hundredfold.training.setup import Setup, as_recorded, make_setup
from hundredfold.training.state import State, first_state


@dataclass
class Sitting:
    """A training in this process: from its first step, or from where another process was."""

    run: Run
    setup: Setup
    state: State
    test: Split
    clock: Clock | None
    started: float
    """Reading of time.perf_counter from which the run's seconds count: set back by what earlier
    sittings took."""


def train(
    config: Config,
    dataset: Dataset | None = None,
    *,
    quiet: bool = False,
    display: Display | None = None,
    trackers: Sequence[Tracker] = (),
    started: float | None = None,
) -> Run:
    """Train a classifier and write its run directory.

    Args:
        config: what to do; see `recipes` for ready ones.
        dataset: the pictures; None loads what `config.data` names.
        quiet: print nothing.
        display: what shows it; None for a table in the terminal.
        trackers: told of the run's start and of each epoch.
        started: reading of time.perf_counter from which the budget and the run's seconds count;
            None for the moment at which the data is loaded.

    Returns:
        The finished run. The test split is read once, at the end (and after each epoch where
        `config.validate_on` says so).

    Raises:
        UserError: the configuration does not fit the data or the machine, or a file cannot be
            read or written.
        KeyboardInterrupt: interrupted; `resume` goes on from there.
        SystemExit: the same by SIGTERM.
    """
    display, device = display or Display(quiet), pick_device(config.device)
    with join_processes() as processes, explained_memory(config), fork_rng(device):
        if dataset is None:
            with processes.main_process_first():
                dataset = load_data(
                    config.data, display.note, size=config.size, strict=config.strict
                )
        digest = dataset.digest()
        dataset = dataset.with_labels(config.labels)
        config = as_recorded(config, dataset)
        setup, clock = make_setup(config, dataset, device, processes), None
        started = started or time.perf_counter()
        if config.budget:
            setup, clock = plan(setup, len(dataset.test), started)
        state, here = first_state(setup), describe_environment(device, digest, processes)
        run = Run(
            Path(processes.broadcast(lambda: str(new_run(setup.config, setup.info, here).path)))
        )
        with writing(run, processes):
            sitting = Sitting(run, setup, state, dataset.test, clock, started)
            return go_on(sitting, display, trackers)


@contextmanager
def writing(run: Run, processes: Processes) -> Iterator[None]:
    """Lock a run, so that only this processes's first process writes it.

    Raises:
        UserError: another process does.
    """
    with nullcontext() if processes.rank else run.lock():
        yield


def go_on(sitting: Sitting, display: Display, trackers: Sequence[Tracker]) -> Run:
    """Train to the end of the schedule, measure on the test split, and return the finished run.

    Of several processes the first does all that is not computing.

    Raises:
        KeyboardInterrupt, SystemExit: asked to stop; a checkpoint was written.
    """
    processes = sitting.setup.processes
    if processes.rank:
        _go_along(sitting)
    else:
        _go_on(sitting, display, trackers)
    processes.barrier()
    return sitting.run


def _go_along(sitting: Sitting) -> None:
    """Compute beside the process that writes."""
    with deferred_stop() as stop:
        asked, agree = 0, sitting.setup.processes.all_max
        for _ in training(sitting.state, sitting.setup, sitting.clock):
            if asked := agree(stop.number):
                break
        if asked := asked or agree(stop.number):
            raise stop_exception(asked)


def _go_on(sitting: Sitting, display: Display, trackers: Sequence[Tracker]) -> None:
    run, setup, state = sitting.run, sitting.setup, sitting.state
    display.start(run, setup.config, _header(setup, state.model))
    for tracker in trackers:
        start(run, tracker)
    with display, deferred_stop() as stop:
        due, asked = _due(setup.config, state.step), 0
        if sitting.clock and not state.step:  # its beginning cannot be made again
            _save(lambda: _save_checkpoint(sitting), display)
        for event in _events(sitting):
            if isinstance(event, Step):
                display.step(event, state.progress)
            else:
                _save(lambda: run.save_history(state.history), display)
                display.epoch(event)
                for tracker in trackers:
                    tracker.epoch(event)
            if asked := setup.processes.all_max(stop.number):
                break
            if due(state.step):
                display.detail(f"checkpoint at step {state.step}")
                _save(lambda: _save_checkpoint(sitting), display)
        _save(lambda: _save_checkpoint(sitting), display)
        asked = asked or setup.processes.all_max(
            stop.number
        )  # what came after the last step counts, too
    if asked:
        display.note(f"Stopped. To go on: {command()} resume {shlex.quote(str(run))}")
        raise stop_exception(asked)
    metrics = _finish(sitting)
    display.summary(run, metrics)


def _events(sitting: Sitting) -> Iterator[Step | Epoch]:
    """Yield what `training` does; keep the batch at which the loss is no longer finite."""
    try:
        yield from training(sitting.state, sitting.setup, sitting.clock)
    except DivergedError as error:
        if not error.batch:
            raise
        path = sitting.run.save_batch(*error.batch)
        raise DivergedError(f"{error} That batch is in {path}.") from error


def _save_checkpoint(sitting: Sitting) -> None:
    """Write all that `resume` needs: readings of the clock as differences to now."""
    now, kept = time.perf_counter(), None
    if clock := sitting.clock:
        left = {"began": clock.began and clock.began - now, "end": clock.end - now}
        kept = dataclasses.asdict(clock) | left
    config, model = dataclasses.asdict(sitting.setup.config), dataclasses.asdict(sitting.setup.info)
    began = {"config": config, "model": model}
    facts = {**began, "elapsed": now - sitting.started, "clock": kept}
    sitting.run.save_checkpoint(sitting.state.tensors, sitting.state.facts | facts)


def _save(write: Callable[[], None], display: Display) -> None:
    """Write what training can do without, for now: a full disk may have room again later."""
    try:
        write()
    except UserError as error:
        display.note(f"{error} Training goes on.")


def _due(config: Config, step: int) -> Callable[[int], bool]:
    """Return what says whether a checkpoint is due after a step, the last one being at `step`."""
    seconds, steps = parse_interval(config.checkpoint)
    last = (time.perf_counter(), step)

    def due(step: int) -> bool:
        nonlocal last
        now = (time.perf_counter(), step)
        if now[0] - last[0] < seconds and now[1] - last[1] < steps:
            return False
        last = now
        return True

    return due


@contextmanager
def explained_memory(config: Config) -> Iterator[None]:
    """Say which number to lower where memory does not suffice.

    Raises:
        UserError: in place of what torch raises then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # a CPU's is a plain RuntimeError
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"Memory does not suffice: lower --batch-size (now {config.batch_size}), --widths or, "
            "for pictures of your own, --size."
        ) from error


def _header(setup: Setup, model: nn.Module) -> list[str]:
    """Return what is about to be trained on what, in lines."""
    config = setup.config
    judged = f", {len(setup.judged):,} {config.validate_on}" if len(setup.judged) else ""
    about = f"{config.budget}: about " if config.budget else ""
    where = device_name(setup.device)
    if setup.device.type == "cpu":
        where += f", {plural(torch.get_num_threads(), 'thread')}"
    if setup.processes.size > 1:
        where = f"{setup.processes.size} processes, each on {where}"
    return [
        f"{config.data}: {len(setup.training):,} training{judged} pictures, "
        f"{plural(len(setup.info.classes), f'{config.labels} class')}",
        f"{config.model}: {count_parameters(model) / 1e6:.2f} M parameters, seed {config.seed}, "
        f"{about}{plural(config.epochs, 'epoch')}, {plural(setup.steps, 'step')} of "
        f"{config.batch_size}",
        where,
    ]


def _finish(sitting: Sitting) -> dict[str, Any]:
    """Read the test split, write the final metrics and the curves; return the metrics."""
    from hundredfold.figures.style import to_png  # noqa: PLC0415  # matplotlib takes 0.3 s to load
    from hundredfold.figures.training import draw_curves  # noqa: PLC0415

    began, setup, state = time.perf_counter(), sitting.setup, sitting.state
    info, calibration = setup.info, 0
    if len(setup.judged) and setup.config.validate_on == "validation":
        if state.judged_logits is None:  # another process judged the last epoch
            parts = setup.judged.parts()
            state.judged_logits = predict_logits(state.model, parts, info)
        temperature = fit_temperature(state.judged_logits, setup.judged.labels)
        info, calibration = dataclasses.replace(info, temperature=temperature), len(setup.judged)
    metrics, tensors = measure_model(state.model, sitting.test, info)
    now = time.perf_counter()
    train_seconds = math.fsum(epoch.seconds for epoch in state.history)
    metrics |= {
        "epoch_pictures": setup.epoch_pictures,
        "validated_on": setup.config.validate_on if len(setup.judged) else None,
        "calibration_pictures": calibration,
        "seconds": now - sitting.started,
        "train_seconds": train_seconds,
        "validation_seconds": math.fsum(epoch.validation_seconds for epoch in state.history),
        "test_seconds": now - began,
        "images_per_second": sum(epoch.pictures for epoch in state.history) / train_seconds,
    }
    curves = draw_curves(state.history, setup.config.validate_on, setup.epoch_pictures)
    sitting.run.save_history(state.history)
    sitting.run.save_figure(CURVES, to_png(curves))
    sitting.run.finish(state.model.state_dict(), info, metrics, tensors)
    return metrics
