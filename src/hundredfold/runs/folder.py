"""The files of a run directory: their names, verified reading, and writing by one process.

Every file is either complete or absent, and the files of a finished run are verified whenever they
are read.
"""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from hundredfold.runs.digests import read_file, read_metrics
from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.files import make_folder, refuse_link, remove_unfinished, save_file

CONFIG_FILE, MODEL_FILE, ENVIRONMENT_FILE = "config.json", "model.json", "environment.json"
HISTORY_FILE, METRICS_FILE = "history.jsonl", "metrics.json"
WEIGHTS_FILE, PREDICTIONS_FILE = "weights.safetensors", "test_logits.npz"
KNOWN_FILE = "known.safetensors"
"""How the model recognises pictures that show none of its classes; not every run has it."""
REPORT_FILE, FAILED_BATCH_FILE = "report.html", "diverged.safetensors"
EXPORT_FOLDER, TENSORBOARD_FOLDER = "export", "tensorboard"
FIGURES, CHECKPOINTS = "figures", "checkpoints"
CURVES = "curves.png"
PORTABLE_FILES = (CONFIG_FILE, MODEL_FILE, ENVIRONMENT_FILE, HISTORY_FILE, WEIGHTS_FILE)
"""The files that describe a run and hold its model."""
VERIFIED_FILES = (*PORTABLE_FILES, PREDICTIONS_FILE)
"""The files whose digests are in METRICS_FILE, and that of KNOWN_FILE if there is one."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, complete or damaged: it has something only runs have."""
    marks = (CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE, METRICS_FILE, CHECKPOINTS)
    return any((folder / mark).exists() for mark in marks)


# Reading


def is_finished(run: Path) -> bool:
    """Return whether the training of a run has ended.

    Raises:
        DamagedError: it has, but the final metrics, which verify the other files, are missing.
    """
    ended = (run / WEIGHTS_FILE).exists() and not (run / CHECKPOINTS).exists()
    has_metrics = (run / METRICS_FILE).exists()
    if ended and not has_metrics:
        raise DamagedError(
            f"{run} is not a complete run: it has weights, but lacks {METRICS_FILE}, which "
            "verifies them."
        )
    return has_metrics


def require_finished(run: Path) -> None:
    """Check that the training of a run has ended.

    Raises:
        UserError: it has not.
    """
    if not is_finished(run):
        command = f"hundredfold resume {shlex.quote(str(run))}"
        raise UserError(f"{run} is not finished. To finish it: {command}")


def final_metrics(run: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the final metrics of a run, and the digest of every other file by its name.

    Raises:
        UserError: the run is not finished, or the file is damaged.
    """
    if not is_finished(run):
        raise UserError(
            f"{run} has no {METRICS_FILE}. Either its training is not finished, or it is not "
            "a run. `hundredfold resume` finishes a training."
        )
    return read_metrics(run / METRICS_FILE)


def read_bytes(run: Path, name: str) -> bytes:
    """Return the content of a run's file; in a finished run, only if training wrote it.

    Raises:
        UserError: the run or the file does not exist, or the file was changed.
    """
    if not run.is_dir():
        raise UserError(
            f"There is no run at {run}. `hundredfold runs FOLDER` lists the runs of a folder."
        )
    digests, path = final_metrics(run)[1] if is_finished(run) else None, run / name
    if not path.exists():
        kind = DamagedError if digests and name in digests else UserError
        raise kind(f"{run} is not a run, or not a complete one: it lacks {name}.")
    return read_file(path, digests)


# Writing. Links are refused: a run from elsewhere could otherwise redirect what is written.


def write(run: Path, name: str, content: str | bytes) -> Path:
    """Write a file of a run, and return its path."""
    refuse_link(run / name)
    save_file(run / name, content)
    return run / name


def subfolder(run: Path, name: str) -> Path:
    """Return a folder of a run to write to, and create it if it does not exist.

    Raises:
        UserError: the folder cannot be created, or it is a link or contains one.
    """
    path = run / name
    refuse_link(path)
    for entry in make_folder(path).iterdir():
        refuse_link(entry)
    return path


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from writing to a run.

    The operating system releases the lock when the process ends. On leaving, the checkpoints of a
    finished run are deleted.

    Raises:
        UserError: another process is writing to the run.
    """
    checkpoints = subfolder(run, CHECKPOINTS)  # deleted at the end, and the lock file with it
    try:
        with filelock.FileLock(checkpoints / ".lock", timeout=0):
            for written in (run, checkpoints, subfolder(run, FIGURES)):
                remove_unfinished(written)  # left by a process that was killed
            try:
                yield
            finally:
                if (run / METRICS_FILE).exists():
                    shutil.rmtree(checkpoints, ignore_errors=True)
    except filelock.Timeout as error:
        raise UserError(f"Another process is training {run}: wait, or stop it.") from error


def tidy(run: Path) -> None:
    """Delete the checkpoints of a finished run, if training was killed before it did so."""
    if is_finished(run) and (run / CHECKPOINTS).exists():
        with suppress(UserError, OSError), locked(run):  # or training is at this point now
            pass
