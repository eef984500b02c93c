"""The table of the runs in a folder, whatever state they are in."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeAlias

from hundredfold.metrics.scores import top1_key
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.folder import is_run
from hundredfold.runs.run import Run
from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.files import expanded

SCORES = ("fine_top1", "coarse_top1", "flip_fine_top1", "flip_coarse_top1", "ece", "seconds")
"""The keys of `final_scores`, in the order in which they are shown."""
SCORE_COLUMNS = tuple(key for key in SCORES if not key.startswith("flip_"))
"""The keys that `RunRow` has as fields."""
SortKey: TypeAlias = Literal[
    "started", "name", "recipe", "labels", "seed", "epochs", "state", "fine_top1", "coarse_top1",
    "ece", "seconds",
]  # fmt: skip
"""Fields of `RunRow` that rows can be sorted by."""


@dataclass(frozen=True)
class RunRow:
    """Summary of a run; None stands for a value that is unknown."""

    name: str
    """Name of the folder."""
    state: Literal["finished", "unfinished", "damaged"]
    recipe: str | None = None
    labels: str | None = None
    """Labels that the run learned: fine or coarse."""
    seed: int | None = None
    epochs_done: float | None = None
    """Epochs done, by the finished share of the schedule."""
    epochs: float | None = None
    """Epochs to train for; with a time budget, the planned number."""
    fine_top1: float | None = None
    """Test accuracy on fine labels, single view (0..1); None if the run learned coarse labels."""
    coarse_top1: float | None = None
    """Test accuracy on superclasses, single view (0..1); None if there are no superclasses."""
    ece: float | None = None
    """Calibration error on the test set (0..1), for the labels that the run learned."""
    seconds: float | None = None
    """Time in seconds from loaded data to measured test set."""
    started: str | None = None
    """Start of training in UTC, ISO 8601."""
    reason: str = ""
    """Why the run cannot be read."""


def list_runs(folder: str | Path) -> list[RunRow]:
    """Return a row for each run directly in a folder, sorted by name; other entries are skipped.

    Args:
        folder: the folder that training wrote to, `Config.out`.

    Raises:
        UserError: there is no such folder.
    """
    path = expanded(folder)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: name one that `train --out` wrote to.")
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    return [_row(Run(entry)) for entry in entries if _may_be_run(entry)]


def _may_be_run(path: Path) -> bool:
    """Return whether a path is a run, or a folder that may not be read."""
    try:
        return path.is_dir() and is_run(path)
    except OSError:
        return True


def sort_rows(rows: Sequence[RunRow], key: SortKey) -> list[RunRow]:
    """Return sorted rows: accuracies descending, other fields ascending, unknown values last."""
    value = attrgetter(key)
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(known, key=value, reverse=key.endswith("_top1")) + unknown


def final_scores(run: Run) -> dict[str, float]:
    """Return the test scores of a finished run by their keys, which are among `SCORES`.

    Returns:
        `fine_top1` if the run learned fine labels; `coarse_top1` if it learned coarse labels or has
        a hierarchy; both again with the prefix `flip_` for flip test-time augmentation; `ece`,
        single view. All these are 0..1. `seconds` as in `RunRow`.

    Raises:
        UserError: the run is damaged.
    """
    metrics, info = run.metrics(), run.info()
    labels = ["fine", "coarse"] if info.labels == "fine" and info.parents else [info.labels]
    keys = [top1_key(name) for name in labels]
    scores: dict[str, float] = {}
    try:
        for view, prefix in (("test", ""), ("test_flip", "flip_")):
            scores |= {prefix + key: float(metrics[view][key]) for key in keys}
        return scores | {"ece": float(metrics["test"]["ece"]), "seconds": float(metrics["seconds"])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The final metrics of {run} are damaged: {error!r}.") from error


def _row(run: Run) -> RunRow:
    """Return a run's row; the row of a damaged run holds only the reason."""
    try:
        config, history = run.config(), run.history()
        scores = final_scores(run) if run.finished else {}
        return RunRow(
            name=run.path.name,
            state="finished" if run.finished else "unfinished",
            recipe=config.name,
            labels=config.labels,
            seed=config.seed,
            epochs_done=_share_done(run, history) * config.epochs,
            epochs=config.epochs,
            fine_top1=scores.get("fine_top1"),
            coarse_top1=scores.get("coarse_top1"),
            ece=scores.get("ece"),
            seconds=scores.get("seconds"),
            started=_started(run),
        )
    except (UserError, OSError) as error:
        return RunRow(name=run.path.name, state="damaged", reason=str(error))


def _share_done(run: Run, history: Sequence[Epoch]) -> float:
    """Return the share of the schedule that is done (0..1)."""
    if history:
        return history[-1].progress
    return float(run.finished)  # a published run has no history


def _started(run: Run) -> str | None:
    """Return when a run started; None if it is published, which leaves its environment out."""
    try:
        return str(run.environment().get("started", "")) or None
    except DamagedError:
        raise
    except UserError:
        if not run.finished:
            raise
        return None
