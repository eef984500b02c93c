"""Resume a run that was interrupted, and reproduce a finished one to compare."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hundredfold.config import Config
from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import measure_model, run_data
from hundredfold.models.build import build_model
from hundredfold.models.timm import digest_of_body
from hundredfold.runs.bundled import find_run
from hundredfold.runs.checkpoints import Checkpoint
from hundredfold.runs.epoch import Epoch, HeadRecord
from hundredfold.runs.folder import CONFIG_FILE, MODEL_FILE, require_finished
from hundredfold.runs.run import Run
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.distributed import Processes, join_processes, restart_count
from hundredfold.support.environment import describe_environment
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.track.base import Tracker
from hundredfold.training.clock import restored_clock
from hundredfold.training.head import held_out
from hundredfold.training.interpolate import interpolate
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.progress import Display
from hundredfold.training.session import Session, lock_run, run_session
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import first_state
from hundredfold.training.train import explained_memory

DECIDING = (
    *("hundredfold", "commit", "torch", "processor", "threads", "convolutions", "device"),
    "processes",
)
"""Parts of the environment that must be the same to give the same bits."""
CHANGEABLE = frozenset({"checkpoint", "device", "out"})
"""Fields of the configuration that may change when a run is resumed."""


def last_unfinished_run(folder: str | Path) -> Run:
    """Return the unfinished run in a folder that started last.

    Raises:
        UserError: there is none.
    """
    if not expanded(folder).is_dir():
        raise UserError(f"There is no folder {folder}, so there is no run to resume.")
    unfinished = [run for run in _runs(folder) if not run.finished]
    if not unfinished:
        raise UserError(f"There is no unfinished run in {folder}.")
    return unfinished[-1]


def run_before_restart(folder: str | Path, processes: Processes) -> Run | None:
    """Return the run that an earlier attempt of the same torchrun started, or None.

    The run may be finished. The first process looks for it, for all processes.
    """
    if not restart_count():
        return None

    def look() -> str:
        ours = [run for run in _runs(folder) if run.environment().get("launch") == processes.launch]
        return str(ours[-1].path) if ours else ""

    path = processes.broadcast(look)
    return Run(Path(path)) if path else None


def _runs(folder: str | Path) -> list[Run]:
    """Return the runs in a folder by the time at which they started, the last at the end."""
    runs = []
    for path in expanded(folder).glob("[!.]*"):  # a hidden folder is not complete yet
        with suppress(UserError, OSError):  # not a run, damaged, or somebody else's
            run = Run(path)
            runs.append((str(run.environment().get("started", "")), path.name, run))
    return [run for *_, run in sorted(runs)]


def resume(
    run: Run | str | Path,
    data: Dataset | str = "",
    *,
    quiet: bool = False,
    display: Display | None = None,
    trackers: Sequence[Tracker] = (),
) -> Run:
    """Continue an interrupted run; on a CPU, to the same bits as without the interruption.

    Args:
        run: the run, or its directory.
        data: where the data is now, as in `--data`, or the dataset itself; empty if it is where
            the run found it.
        quiet: print nothing.
        display: shows the progress; None for a table in the terminal.
        trackers: experiment trackers, as in `train`.

    Returns:
        The finished run.

    Raises:
        UserError: the run is finished or damaged, another process is training it, or its data or
            its configuration has changed.
        KeyboardInterrupt, SystemExit: as in `train`.

    Examples:
        >>> try:
        ...     run = resume(run)
        ... except UserError:
        ...     print("This run is finished already.")
        This run is finished already.
    """
    run = find_run(run)
    display, config = display or Display(quiet), run.config()
    _refuse_finished(run)
    device = pick_device(config.device)
    with join_processes() as processes, explained_memory(config), fork_rng(device):
        with processes.main_process_first():
            dataset = run_data(run, data)
        with lock_run(run, processes):
            _refuse_finished(run)  # another process may have finished it meanwhile
            setup = make_setup(config, dataset, device, processes)
            environment = describe_environment(device, run.environment()["data_sha256"], processes)
            for difference in differences(run.environment(), environment):
                display.note(f"{difference}: the result may differ from an uninterrupted run's.")
            session = _restored_session(run, setup, dataset, display)
            if not processes.rank:
                run.save_history(session.state.history)  # the checkpoint may be older than the file
                run.add_environment(environment)
            return run_session(session, display, trackers)


def _refuse_finished(run: Run) -> None:
    if run.finished:
        run.tidy()
        raise UserError(
            f"{run} is finished and cannot be resumed: its learning-rate schedule is complete. To "
            "train longer, start a new run: train --epochs N."
        )


def _restored_session(run: Run, setup: Setup, dataset: Dataset, display: Display) -> Session:
    """Return a session from the last checkpoint of a run, or from before its first step."""
    now, last = time.perf_counter(), run.newest_checkpoint(display.note)
    _refuse_changes(run, setup, last)
    if last and last.head and len(held_out(setup)):  # `interpolate` will compare with them
        _refuse_other_weights(run, setup, last.head)
    # A checkpoint replaces pretrained weights.
    session = Session(run, setup, first_state(setup, pretrained=not last), dataset.test, None, now)
    if last is None:
        display.note(f"{run} has no checkpoint yet: it starts again from the beginning.")
        return session
    session.state.load(last)
    session.started = now - last.elapsed
    if last.clock:
        session.clock = restored_clock(last.clock, now)
    elif last.progress != setup.share_of(last.steps_done):
        raise UserError(f"The checkpoint of {run} belongs to another training: its steps differ.")
    return session


def _refuse_changes(run: Run, setup: Setup, last: Checkpoint | None) -> None:
    """Check that a run can be resumed with this setup.

    Raises:
        UserError: the model or the configuration is not that of the run's start.
    """
    if last:
        _refuse_other_configuration(run, setup.config, last.config)
    if dataclasses.replace(run.info(), temperature=1.0) != setup.info:
        raise UserError(
            f"The {MODEL_FILE} of {run} does not match its {CONFIG_FILE} and its data. One of them "
            "was changed, or comes from another version of hundredfold. Restore it, or start a new "
            "run."
        )
    if not last and setup.config.budget:
        raise UserError(
            f"{run} has a time budget (--budget) and no checkpoint, so it cannot be resumed. Start "
            "a new training."
        )


def _refuse_other_configuration(run: Run, now: Config, before: Config) -> None:
    """Check that the configuration is still that of the last checkpoint.

    Raises:
        UserError: it is not.
    """
    changes = [
        f"{name} ({getattr(before, name)} -> {getattr(now, name)})"
        for name in sorted({field.name for field in dataclasses.fields(Config)} - CHANGEABLE)
        if getattr(before, name) != getattr(now, name)
    ]
    if changes:
        raise UserError(
            f"{run.path / CONFIG_FILE} was changed: {', '.join(changes)}. A run keeps its "
            "configuration to its end. Undo the changes, or start a new run with them."
        )


def _refuse_other_weights(run: Run, setup: Setup, head: HeadRecord) -> None:
    """Check that the pretrained weights, which the end of training needs again, are still there.

    Raises:
        UserError: they are not, or they are others.
    """
    digest = digest_of_body(build_model(setup.info, setup.config.weights))
    if head.weights_sha256 not in ("", digest):  # earlier versions did not record it
        raise UserError(
            f"The pretrained weights of --weights {setup.config.weights} have changed since {run} "
            "began. The end of training needs the original ones: restore them, or start a new run."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences of two environments that may change the bits of a run on a CPU.

    Args:
        before: an earlier environment, as returned by `describe_environment`.
        now: the environment of this process.
    """
    return [
        f"{key} was {before.get(key)} when the run started, and is {now.get(key)} now"
        for key in DECIDING
        if before.get(key) != now.get(key)
    ]


@dataclass(frozen=True)
class Repeat:
    """A part of a run that was computed again."""

    what: str
    """Name of the part, such as `epoch 3`."""
    difference: str
    """How it differs from the run's own; empty if it does not."""


def reproduce(
    run: Run | str | Path, data: Dataset | str = "", advance: Callable[[int], None] = lambda _: None
) -> Iterator[Repeat]:
    """Train a finished run again and compare each epoch, the weights and the test predictions.

    Args:
        run: the run, or its directory; nothing is written to it.
        data: as in `resume`.
        advance: called with the number of steps just finished.

    Raises:
        UserError: the run is unfinished, follows the clock or is damaged, or its data has changed.

    Examples:
        >>> all(part.difference == "" for part in reproduce(run))
        True
    """
    run = find_run(run)
    config, device = run.config(), pick_device(run.config().device)
    require_finished(run.path)
    if config.budget:
        raise UserError(
            f"{run} was trained with a time budget (--budget). Its number of steps depended on the "
            "speed of the machine, so it cannot be repeated exactly."
        )
    dataset, history = run_data(run, data), run.history()
    with explained_memory(config), fork_rng(device):
        setup = make_setup(config, dataset, device)
        state = first_state(setup)
        for event in train_events(state, setup):
            if isinstance(event, StepRecord):
                advance(1)
            else:
                yield Repeat(f"epoch {event.epoch}", _epoch_difference(history, event))
        interpolate(state, setup)
        stored, ours = run.model().state_dict(), state.model.state_dict()
        names = [name for name, value in stored.items() if not value.equal(ours[name].cpu())]
        yield Repeat("weights", ", ".join(names))
        stored = run.test_logits()
        _, tensors = measure_model(state.model, dataset.test, run.info())
        names = [name for name, value in stored.items() if not value.equal(tensors[name])]
        yield Repeat("test predictions", ", ".join(names))


def _epoch_difference(history: Sequence[Epoch], epoch: Epoch) -> str:
    """Return how an epoch differs from the recorded one, aside from times; empty if equal."""
    if epoch.epoch > len(history):
        return "it is not in the run's history"
    recorded = history[epoch.epoch - 1]
    for step, (before, now) in enumerate(zip(recorded.loss, epoch.loss, strict=False), 1):
        if before != now:
            return f"the loss of step {step} was {before}, and is {now} now"
    for name in ("pictures", "train_loss", "lr", "validation"):
        if getattr(recorded, name) != getattr(epoch, name):
            return f"{name} was {getattr(recorded, name)}, and is {getattr(epoch, name)} now"
    return ""
