"""The report of a run: one page that needs nothing beside it, and its figures as files."""

from pathlib import Path

from hundredfold.data import Dataset, Split
from hundredfold.errors import UserError
from hundredfold.evaluate import run_data
from hundredfold.levels import levels
from hundredfold.report.figures import Drawn, draw_figures, save_figures
from hundredfold.report.page import render
from hundredfold.run import Run

__all__ = ["write_report"]


def write_report(run: Run | str | Path, data: Dataset | str = "") -> Path:
    """Write a run's report.html and its figures, from the run directory alone; return its path.

    The test pictures are shown too where the data can be had; the page says so where it cannot.

    Args:
        run: a finished run, or its directory.
        data: as in `evaluate`.

    Raises:
        UserError: no such run, or it is not finished, or cannot be written.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    if run.path.is_dir() and not run.finished:
        raise UserError(f"{run} is not finished, so there is nothing to report yet.")
    test, missing = _pictures(run, data)
    found = levels(run)
    drawn: Drawn = draw_figures(run, found)
    save_figures(run, drawn)
    return run.save_report(render(run, found, drawn, test, missing))


def _pictures(run: Run, data: Dataset | str) -> tuple[Split | None, str]:
    """Return the test pictures, or None and why there are none."""
    try:
        return run_data(run, data).test, ""
    except UserError as error:
        return None, str(error)
