"""The report of a run: one page that needs nothing beside it, and its figures as files."""

from collections.abc import Callable
from pathlib import Path

from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import run_data_if_any
from hundredfold.evaluation.predictions import scored_predictions
from hundredfold.report.figures import draw_figures, save_figures
from hundredfold.report.page import render
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import UserError

__all__ = ["write_report"]


def write_report(
    run: Run | str | Path, data: Dataset | str = "", tell: Callable[[str], None] = say
) -> Path:
    """Write a run's report.html and its figures, from the run directory alone; return its path.

    The test pictures are shown too where the data can be had; the page says so where it cannot.

    Args:
        run: a finished run, or its directory.
        data: as in `evaluate`.
        tell: takes a sentence where the pictures could not be had, or a class has no test picture.

    Raises:
        UserError: no such run, or it is not finished, damaged or cannot be written, or the data
            that was named is not what it was trained on.
    """
    run = find_run(run)
    if run.path.is_dir() and not run.finished:
        raise UserError(f"{run} is not finished, so there is nothing to report yet.")
    dataset, missing = run_data_if_any(run, data)
    test = dataset.test if dataset else None
    if missing:
        tell(f"The report has no pictures: {missing}")
    try:
        found = scored_predictions(run)
        if found[0].untested:
            tell(found[0].untested)
        drawn = draw_figures(run, found)
        page = render(run, found, drawn, test, missing)
    except KeyError as error:
        raise UserError(f"{run} is damaged: it lacks {error}.") from error
    save_figures(run, drawn)
    return run.save_report(page)
