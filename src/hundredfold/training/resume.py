"""Go on with a run that was interrupted, and do a finished one again to compare."""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import measure_model, run_data
from hundredfold.runs.bundled import find_run
from hundredfold.runs.checkpoints import Checkpoint
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import CONFIG_FILE, MODEL_FILE, Run
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.distributed import Processes, join_processes, restart_count
from hundredfold.support.environment import describe_environment
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.jsonio import to_json
from hundredfold.track.base import Tracker
from hundredfold.training.clock import Clock
from hundredfold.training.loop import Step, training
from hundredfold.training.progress import Display
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import first_state
from hundredfold.training.train import Sitting, explained_memory, go_on, writing

DECIDING = ("hundredfold", "commit", "torch", "processor", "threads", "device", "processes")
"""What has to be the same for the same bits."""
FREE = frozenset({"checkpoint", "device", "out"})
"""Fields of the configuration that may change on the way."""


def last_run(folder: str | Path) -> Run:
    """Return the run in a folder that was begun last of those that are not finished.

    Raises:
        UserError: there is none.
    """
    if not expanded(folder).is_dir():
        raise UserError(f"There is no folder {folder}: nothing to go on with.")
    unfinished = [run for run in _runs(folder) if not run.finished]
    if not unfinished:
        raise UserError(f"There is no unfinished run in {folder}.")
    return unfinished[-1]


def begun_before(folder: str | Path, processes: Processes) -> Run | None:
    """Return the run that torchrun's earlier try at this training began, if any.

    It may be finished. The first process looks, for all.
    """
    if not restart_count():
        return None

    def look() -> str:
        ours = [run for run in _runs(folder) if run.environment().get("launch") == processes.launch]
        return str(ours[-1].path) if ours else ""

    found = processes.broadcast(look)
    return Run(Path(found)) if found else None


def _runs(folder: str | Path) -> list[Run]:
    """Return the runs in a folder, the one that was begun last at the end."""
    found = []
    for path in expanded(folder).glob("[!.]*"):  # hidden ones are not whole yet
        with suppress(UserError):  # it is no run, or damaged
            run = Run(path)
            found.append((str(run.environment().get("started", "")), path.name, run))
    return [run for *_, run in sorted(found)]


def resume(
    run: Run | str | Path,
    data: Dataset | str = "",
    *,
    quiet: bool = False,
    display: Display | None = None,
    trackers: Sequence[Tracker] = (),
) -> Run:
    """Go on with a run where it was interrupted; on a CPU, to the bits it would have had.

    Args:
        run: the run, or its directory.
        data: where the data is now, as `--data` would name it, or the dataset itself; empty for
            where the run found it.
        quiet: print nothing.
        display: what shows it; None for a table in the terminal.
        trackers: as in `train`.

    Returns:
        The finished run.

    Raises:
        UserError: the run is finished or damaged, another process trains it, its data has changed,
            or its configuration.
        KeyboardInterrupt, SystemExit: as in `train`.
    """
    run = find_run(run)
    display, config = display or Display(quiet), run.config()
    _refuse_finished(run)
    device = pick_device(config.device)
    with join_processes() as processes, explained_memory(config), fork_rng(device):
        with processes.main_process_first():
            dataset = run_data(run, data)
        with writing(run, processes):
            _refuse_finished(run)  # by another process, meanwhile
            setup = make_setup(config, dataset, device, processes)
            here = describe_environment(device, run.environment()["data_sha256"], processes)
            for difference in differences(run.environment(), here):
                display.note(f"{difference}: the run will not be the same to the bit.")
            sitting = _sitting(run, setup, dataset, display)
            if not processes.rank:
                run.save_history(sitting.state.history)  # the checkpoint may be older
                run.add_environment(here)
            return go_on(sitting, display, trackers)


def _refuse_finished(run: Run) -> None:
    if run.finished:
        run.tidy()
        raise UserError(
            f"{run} is finished: its learning rate has come down, and from there more steps would "
            "not do what a longer run does. For more epochs begin a new one: train --epochs N."
        )


def _sitting(run: Run, setup: Setup, dataset: Dataset, display: Display) -> Sitting:
    """Return the training as its last checkpoint has it, or before its first step."""
    now, last = time.perf_counter(), run.checkpoint(display.note)
    _refuse_changes(run, setup, last)
    begun = setup  # with a checkpoint, nothing is left of the weights that it began with
    if last:
        begun = dataclasses.replace(setup, config=dataclasses.replace(setup.config, weights=""))
    sitting = Sitting(run, setup, first_state(begun), dataset.test, None, now)
    if last is None:
        display.note(f"{run} has no checkpoint yet: it begins again, the same as before.")
        return sitting
    sitting.state.load(last.tensors, last.facts)
    try:
        sitting.started = now - float(last.facts["elapsed"])
        if kept := last.facts["clock"]:
            began = kept["began"] and now + kept["began"]
            seconds = tuple(float(value) for value in kept["seconds"])
            sitting.clock = Clock(now + kept["end"], seconds, began, float(kept["expected"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The checkpoint of {run} is of another version: {error!r}") from error
    if not sitting.clock and sitting.state.progress != sitting.state.step / setup.steps:
        raise UserError(f"The checkpoint of {run} is not one of its training: its steps differ.")
    return sitting


def _refuse_changes(run: Run, setup: Setup, last: Checkpoint | None) -> None:
    """Refuse to go on with what was begun as something else.

    Raises:
        UserError: the model or the configuration is not that of the run's beginning.
    """
    if last:
        _refuse_other_configuration(run, setup, last)
    if dataclasses.replace(run.info(), temperature=1.0) != setup.info:
        raise UserError(
            f"{run} has another model in its {MODEL_FILE} than its {CONFIG_FILE} and data give: "
            "one of them was changed, or is of another version of hundredfold."
        )
    if not last and setup.config.budget:
        raise UserError(f"{run} follows the clock and was not under way yet: begin it again.")


def _refuse_other_configuration(run: Run, setup: Setup, last: Checkpoint) -> None:
    """Refuse to go on from a checkpoint with another configuration.

    Raises:
        UserError: the configuration is not that of the checkpoint.
    """
    now, was = json.loads(to_json(setup.config)), last.facts.get("config")
    if not isinstance(was, dict):
        raise UserError(f"The checkpoint of {run} is of another version: it has no configuration.")
    if new := now.keys() - was.keys():
        raise UserError(
            f"{run} was begun by another version of hundredfold, without {', '.join(sorted(new))}."
        )
    if changed := sorted({key for key in now if now[key] != was[key]} - FREE):
        what = ", ".join(f"{key} ({was[key]} -> {now[key]})" for key in changed)
        raise UserError(
            f"{run.path / CONFIG_FILE} is not what it was: {what}. A run keeps its "
            "configuration to its end; begin a new one for another."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs of two environments, of what decides the bits of a run on a CPU.

    Args:
        before: as of `environment.describe`.
        now: the same of this process.
    """
    return [
        f"{key} is {now.get(key)}, and was {before.get(key)}"
        for key in DECIDING
        if before.get(key) != now.get(key)
    ]


@dataclass(frozen=True)
class Repeat:
    """A part of a run that was done again."""

    what: str
    """Such as `epoch 3`."""
    difference: str
    """From the run's own; empty for none."""


def reproduce(
    run: Run | str | Path, data: Dataset | str = "", advance: Callable[[int], None] = lambda _: None
) -> Iterator[Repeat]:
    """Do a finished run again and compare: each epoch, the weights, the test predictions.

    Args:
        run: the run, or its directory; nothing is written to it.
        data: as in `resume`.
        advance: takes the number of steps just done.

    Raises:
        UserError: the run is not finished, follows the clock or is damaged, or its data has
            changed.
    """
    run = find_run(run)
    config, device = run.config(), pick_device(run.config().device)
    if not run.finished:
        raise UserError(f"{run} is not finished: hundredfold resume {shlex.quote(str(run))}")
    if config.budget:
        raise UserError(f"{run} followed the clock (--budget): no two such runs are the same.")
    dataset, history = run_data(run, data), run.nonempty_history()
    with explained_memory(config), fork_rng(device):
        setup = make_setup(config, dataset, device)
        state = first_state(setup)
        for event in training(state, setup):
            if isinstance(event, Step):
                advance(1)
            else:
                yield Repeat(f"epoch {event.epoch}", _other_epoch(history, event))
        weights, ours = run.model().state_dict(), state.model.state_dict()
        other = [name for name, value in weights.items() if not value.equal(ours[name].cpu())]
        yield Repeat("weights", ", ".join(other))
        _, tensors = measure_model(state.model, dataset.test, run.info())
        stored = run.test_logits()
        other = [name for name, value in stored.items() if not value.equal(tensors[name])]
        yield Repeat("test predictions", ", ".join(other))


def _other_epoch(history: Sequence[Epoch], epoch: Epoch) -> str:
    """Return in what an epoch differs from the one in a history, times aside; empty for nothing."""
    if epoch.epoch > len(history):
        return "it is not in the run's history"
    was = history[epoch.epoch - 1]
    for step, (before, now) in enumerate(zip(was.loss, epoch.loss, strict=False), 1):
        if before != now:
            return f"the loss of step {step} is {now}, and was {before}"
    for name in ("pictures", "train_loss", "lr", "validation"):
        if getattr(was, name) != getattr(epoch, name):
            return f"{name} is {getattr(epoch, name)}, and was {getattr(was, name)}"
    return ""
