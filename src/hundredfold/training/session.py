"""Train in this process, from any state to the end of the schedule, and write the run."""

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hundredfold.config import Config
from hundredfold.data.dataset import Split
from hundredfold.evaluation.evaluate import measure_model
from hundredfold.inference.known import known_tensors
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.calibration import fit_temperature
from hundredfold.metrics.scores import FEW_TEST_PICTURES
from hundredfold.runs.checkpoints import Checkpoint
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.folder import CURVES
from hundredfold.runs.run import Run
from hundredfold.support.console import command
from hundredfold.support.distributed import Processes
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.support.signals import deferred_stop, stop_exception
from hundredfold.support.units import parse_interval
from hundredfold.track.base import Tracker
from hundredfold.track.trackers import start_tracker
from hundredfold.training.batches import describe_waiting
from hundredfold.training.clock import Clock
from hundredfold.training.cross_validation import cross_validate
from hundredfold.training.header import describe_training
from hundredfold.training.interpolate import Interpolation, describe, interpolate
from hundredfold.training.known import fit_known
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.progress import Display
from hundredfold.training.setup import Setup
from hundredfold.training.state import State


@dataclass
class Session:
    """A training in this process, from its first step or from a checkpoint."""

    run: Run
    setup: Setup
    state: State
    test: Split
    clock: Clock | None
    started: float
    """Reading of time.perf_counter from which the seconds of the run count. In a resumed run, it is
    set back by the time of the earlier sessions."""

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of this moment; its tensors are not copied."""
        now = time.perf_counter()
        clock = self.clock.state(now) if self.clock else None
        return self.state.checkpoint(self.setup, now - self.started, clock)


@contextmanager
def lock_run(run: Run, processes: Processes) -> Iterator[None]:
    """Lock a run, so that only the first of these processes writes to it.

    Raises:
        UserError: a process that does not belong to this training writes to it.
    """
    with nullcontext() if processes.rank else run.lock():
        yield


def run_session(session: Session, display: Display, trackers: Sequence[Tracker]) -> Run:
    """Train to the end of the schedule, evaluate on the test split, and return the finished run.

    With several processes, only the first writes files and shows the progress.

    Raises:
        KeyboardInterrupt, SystemExit: training was asked to stop; a checkpoint was written.
    """
    processes = session.setup.processes
    if processes.rank:
        _train_silently(session)
    else:
        _train_and_write(session, display, trackers)
    processes.barrier()
    return session.run


def _train_silently(session: Session) -> None:
    """Train in a process that does not write."""
    with deferred_stop() as stop:
        signal, agree = 0, session.setup.processes.all_max
        for event in train_events(session.state, session.setup, session.clock):
            if isinstance(event, Epoch):
                session.setup.processes.describe_slow()
            if signal := agree(stop.number):
                break
        if signal := signal or agree(stop.number):
            raise stop_exception(signal)


def _train_and_write(session: Session, display: Display, trackers: Sequence[Tracker]) -> None:
    run, setup, state = session.run, session.setup, session.state
    display.start(run, setup.config, describe_training(setup, state))
    for tracker in trackers:
        start_tracker(run, tracker)
    with display, deferred_stop() as stop:
        due, signal, before = _checkpoint_timer(setup.config, state.steps_done), 0, ("", "")
        if session.clock and not state.steps_done:  # a budget cannot be measured again the same way
            _try_to_write(lambda: run.save_checkpoint(session.checkpoint()), display)
        for event in _events(session):
            if isinstance(event, StepRecord):
                display.step(event, state.epochs_done, state.progress)
            else:
                _try_to_write(lambda: run.save_history(state.history), display)
                display.epoch(event)
                for tracker in trackers:
                    tracker.epoch(event)
                waiting = describe_waiting(setup.train_split, event.seconds)
                slow = setup.processes.describe_slow(), waiting
                for sentence, earlier in zip(slow, before, strict=True):
                    if sentence and not earlier:
                        display.note(sentence)
                before = slow
            if signal := setup.processes.all_max(stop.number):
                break
            if due(state.steps_done):
                display.detail(f"checkpoint at step {state.steps_done}")
                _try_to_write(lambda: run.save_checkpoint(session.checkpoint()), display)
        _try_to_write(lambda: run.save_checkpoint(session.checkpoint()), display)
        signal = signal or setup.processes.all_max(stop.number)  # one may come after the last step
    if signal:
        display.note(f"Stopped. To continue: {command()} resume {shlex.quote(str(run))}")
        raise stop_exception(signal)
    interpolation = interpolate(state, setup)
    if interpolation and (sentence := describe(interpolation, state)):
        display.note(sentence)
    display.summary(run, _finish(session, interpolation, display.note))


def _events(session: Session) -> Iterator[StepRecord | Epoch]:
    """Yield the events of training; if the loss is no longer finite, save the batch."""
    try:
        yield from train_events(session.state, session.setup, session.clock)
    except DivergedError as error:
        if not error.batch:
            raise
        try:
            where = f"The batch of that step is saved in {session.run.save_batch(*error.batch)}."
        except UserError as unsaved:  # the disk is full
            where = f"The batch of that step is not saved: {unsaved}"
        raise DivergedError(f"{error} {where}") from error


def _try_to_write(write: Callable[[], None], display: Display) -> None:
    """Write a file that training can do without for now: a full disk may have room again later."""
    try:
        write()
    except UserError as error:
        display.note(f"{error} Training continues.")


def _checkpoint_timer(config: Config, steps_done: int) -> Callable[[int], bool]:
    """Return a function that says whether a checkpoint is due after a number of steps.

    Args:
        config: how often to write a checkpoint.
        steps_done: number of steps at the last checkpoint.
    """
    seconds, steps = parse_interval(config.checkpoint)
    last_time, last_steps = time.perf_counter(), steps_done

    def due(steps_done: int) -> bool:
        nonlocal last_time, last_steps
        now = time.perf_counter()
        if now - last_time < seconds and steps_done - last_steps < steps:
            return False
        last_time, last_steps = now, steps_done
        return True

    return due


def _finish(
    session: Session, interpolation: Interpolation | None, note: Callable[[str], None]
) -> dict[str, Any]:
    """Evaluate on the test split, write the final metrics and the curves; return the metrics.

    Args:
        session: a training at its end.
        interpolation: the weights that a fine-tuned model ends with.
        note: receives sentences for the user.
    """
    started, run, setup, state = time.perf_counter(), session.run, session.setup, session.state
    info, calibration_pictures, held_out = setup.info, 0, len(setup.validation_split)
    logits = None
    if held_out and setup.config.validate_on == "validation":
        logits = _validation_logits(session)
        temperature = fit_temperature(logits, setup.validation_split.labels)
        info = dataclasses.replace(info, temperature=temperature)
        calibration_pictures = held_out
    known = fit_known(setup, state, logits)
    if state.head and not known:
        missing = logits is None and state.history  # without epochs, training pictures would do
        why = "No pictures are held out" if missing else "There are too few pictures"
        note(f'{why}, so the model cannot answer "none of these".')
    metrics, tensors = measure_model(state.model, session.test, info, known)
    now = time.perf_counter()
    train_seconds = math.fsum(epoch.seconds for epoch in state.history)
    metrics |= {
        "epoch_pictures": setup.epoch_pictures,
        "validated_on": setup.config.validate_on if held_out else None,
        "calibration_pictures": calibration_pictures,
        "seconds": now - session.started,
        "train_seconds": train_seconds,
        "validation_seconds": math.fsum(epoch.validation_seconds for epoch in state.history),
        "test_seconds": now - started,
        "images_per_second": sum(epoch.pictures for epoch in state.history) / train_seconds
        if state.history
        else 0.0,
        "head": dataclasses.asdict(state.head) if state.head else None,
        "interpolation": interpolation._asdict() if interpolation else None,
    }
    if state.head and len(session.test) < FEW_TEST_PICTURES:
        try:
            metrics["cross_validation"] = cross_validate(setup, session.test, state.head.strength)
        except UserError as error:  # a resumed run does not need the file of pretrained weights
            note(f"{error} So the pretrained features are not cross-validated.")
    # Only now, outside the measured time: loading matplotlib takes 0.3 s.
    from hundredfold.figures.style import to_png  # noqa: PLC0415
    from hundredfold.figures.training import draw_curves  # noqa: PLC0415

    run.save_history(state.history)
    if state.history:
        curves = draw_curves(state.history, setup.config.validate_on, setup.epoch_pictures)
        run.save_figure(CURVES, to_png(curves))
    stored = known_tensors(known) if known else None
    run.finish(state.model.state_dict(), info, metrics, tensors, stored)
    return metrics


def _validation_logits(session: Session) -> Tensor:
    """Return the logits of the validation split after the last epoch, or of `fit_head`."""
    setup, state = session.setup, session.state
    if state.validation_logits is None:  # an earlier session computed them, but did not save them
        parts = setup.validation_split.parts()
        state.validation_logits = predict_logits(state.model, parts, setup.info)
    return state.validation_logits
