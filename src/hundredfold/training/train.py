"""Train a classifier: from a configuration to a finished run directory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from hundredfold.config import Config
from hundredfold.data.dataset import Dataset
from hundredfold.data.encoded import WORKER_KILLED, is_killed_worker
from hundredfold.runs.new_run import new_run
from hundredfold.runs.run import Run
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.support.environment import describe_environment
from hundredfold.support.errors import UserError
from hundredfold.support.files import fingerprint
from hundredfold.track.base import Tracker
from hundredfold.training.budget import plan_budget
from hundredfold.training.choose_fit import load_with_best_fit
from hundredfold.training.progress import Display
from hundredfold.training.session import Session, lock_run, run_session
from hundredfold.training.setup import as_recorded, make_setup, validation_remarks
from hundredfold.training.state import first_state


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
        config: the configuration, such as one returned by a function in `recipes`.
        dataset: the pictures; None loads those that `config.data` names.
        quiet: print nothing.
        display: shows the progress; None for a table in the terminal.
        trackers: experiment trackers, which receive the start of the run and every epoch.
        started: reading of time.perf_counter from which the budget and the seconds of the run
            count; None for the moment at which the data is loaded.

    Returns:
        The finished run. The test split is used once, at the end, and also after every epoch if
        `config.validate_on` is "test".

    Raises:
        UserError: the configuration does not fit the data or the machine, or a file cannot be
            read or written.
        KeyboardInterrupt: training was interrupted by Ctrl-C; `resume` continues it.
        SystemExit: training was interrupted by SIGTERM; `resume` continues it.

    Examples:
        >>> run = train(quick(data="sample", epochs=0.2, device="cpu"), quiet=True)
        >>> run.finished
        True
    """
    if config.budget and not config.epochs:
        raise UserError(
            "--budget has no effect with --epochs 0, as in the recipe probe: only a head is "
            "trained. Omit --budget, or use the recipe finetune."
        )
    display, device = display or Display(quiet), pick_device(config.device)
    with join_processes() as processes, explained_memory(config), fork_rng(device):
        if dataset is None:
            with processes.main_process_first():
                config, dataset, loaded = load_with_best_fit(config, display.note)
            started = started or loaded
        digest = dataset.digest()
        dataset = dataset.with_labels(config.labels)
        wanted, config = config.precision, as_recorded(config, dataset)
        exact = processes.all_max(config.precision == "float32")
        if wanted == "auto" and exact:  # also on a machine that would take less time in bfloat16
            config = replace(config, precision="float32")
        setup, clock = make_setup(config, dataset, device, processes), None
        _refuse_different(processes, digest, setup.config)
        for sentence in validation_remarks(setup, dataset):
            display.note(sentence)
        started = started or time.perf_counter()
        state = first_state(setup)
        if config.budget and config.epochs:
            setup, clock = plan_budget(setup, len(dataset.test), started)
            state.progress = setup.share_of(
                0
            )  # no steps, if the budget is enough only for the head
        environment = describe_environment(device, digest, processes)
        path = processes.broadcast(lambda: str(new_run(setup.config, setup.info, environment).path))
        run = Run(Path(path))
        with lock_run(run, processes):
            session = Session(run, setup, state, dataset.test, clock, started)
            return run_session(session, display, trackers)


def _refuse_different(processes: Processes, digest: str, config: Config) -> None:
    """Check that all processes have the same data and settings, apart from places on their machine.

    Raises:
        UserError: they have not; all processes raise it.
    """
    places = {"data", "weights", "cache", "out", "device"}
    values = [value for name, value in asdict(config).items() if name not in places]
    mine = fingerprint(digest, values).hex()
    if processes.all_max(processes.broadcast(lambda: mine) != mine):
        raise UserError(
            "The processes of this training have different data or different settings. Start all "
            "of them with the same command, and give all machines the same pictures."
        )


@contextmanager
def explained_memory(config: Config) -> Iterator[None]:
    """Say which settings to lower if there is not enough memory, or that a process was killed.

    Raises:
        UserError: in place of the error that torch raises then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises a plain RuntimeError on a CPU
        if is_killed_worker(error):
            raise UserError(WORKER_KILLED) from error
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"There is not enough memory: lower --batch-size (now {config.batch_size}), --widths "
            "or, for pictures of your own, --size."
        ) from error
