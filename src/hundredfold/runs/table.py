"""The runs of a folder: a row each, whatever state they are in."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeAlias

from hundredfold.runs.run import Run, is_run
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded

Column: TypeAlias = Literal[
    "started", "name", "recipe", "labels", "seed", "epochs", "state", "fine_top1", "coarse_top1",
    "ece", "seconds",
]  # fmt: skip
"""What rows can be sorted by."""


@dataclass(frozen=True)
class RunRow:
    """A run at a glance; None is what is not known, or not yet."""

    name: str
    """Of its folder."""
    state: Literal["finished", "unfinished", "damaged"]
    recipe: str | None = None
    labels: str | None = None
    """Which labels it learned: fine or coarse."""
    seed: int | None = None
    epochs_done: float | None = None
    """By the share of the schedule that is done."""
    epochs: float | None = None
    """That it was to train for; with a time budget, those that were planned."""
    fine_top1: float | None = None
    """Accuracy on the test set, single view (0..1); None where it learned coarse labels."""
    coarse_top1: float | None = None
    """The same of the superclasses; None where there are none."""
    ece: float | None = None
    """Calibration error on the test set (0..1), of the labels that it learned."""
    seconds: float | None = None
    """From the data loaded to the test measured."""
    started: str | None = None
    """UTC, ISO 8601."""
    reason: str = ""
    """Why it cannot be read."""


def list_runs(folder: str | Path) -> list[RunRow]:
    """Return a row for each run directly in a folder, by name; what is no run is passed over.

    Args:
        folder: the one that training wrote to, `Config.out`.

    Raises:
        UserError: there is no such folder.
    """
    path = expanded(folder)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: name one that `train --out` wrote to.")
    runs = [Run(entry) for entry in sorted(path.iterdir()) if entry.is_dir()]
    return [_row(run) for run in runs if is_run(run.path)]


def sort_rows(rows: Sequence[RunRow], column: Column) -> list[RunRow]:
    """Return rows by a column: accuracies from the best down, all else rising, unknowns last."""
    value = attrgetter(column)
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(known, key=value, reverse=column.endswith("_top1")) + unknown


def scores(run: Run) -> dict[str, float]:
    """Return what a finished run reached, by name.

    Returns:
        fine_top1 (only where it learned fine labels), coarse_top1 (only with a hierarchy), each
        also as flip_fine_top1 and flip_coarse_top1 with flip test-time augmentation; ece, single
        view; all these 0..1; seconds.

    Raises:
        UserError: the run is damaged.
    """
    metrics, info = run.metrics(), run.info()
    found: dict[str, float] = {}
    names = [f"{info.labels}_top1"]
    if info.labels == "fine" and info.parents:
        names.append("coarse_top1")
    try:
        for view, prefix in (("test", ""), ("test_flip", "flip_")):
            found |= {prefix + name: float(metrics[view][name]) for name in names}
        return found | {"ece": float(metrics["test"]["ece"]), "seconds": float(metrics["seconds"])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The final metrics of {run} are damaged: {error!r}.") from error


def _row(run: Run) -> RunRow:
    """Return a run's row; a damaged run's has only the reason."""
    try:
        config, history = run.config(), run.history()
        found = scores(run) if run.finished else {}
        return RunRow(
            name=run.path.name,
            state="finished" if run.finished else "unfinished",
            recipe=config.name,
            labels=config.labels,
            seed=config.seed,
            epochs_done=history[-1].progress * config.epochs if history else 0.0,
            epochs=config.epochs,
            fine_top1=found.get("fine_top1"),
            coarse_top1=found.get("coarse_top1"),
            ece=found.get("ece"),
            seconds=found.get("seconds"),
            started=str(run.environment().get("started", "")) or None,
        )
    except UserError as error:
        return RunRow(name=run.path.name, state="damaged", reason=str(error))
