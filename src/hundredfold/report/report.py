"""Write the report of a run: one self-contained page, and its figures as files."""

from collections.abc import Callable
from pathlib import Path

from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import run_data_if_any
from hundredfold.evaluation.predictions import scored_predictions
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import UserError


def write_report(
    run: Run | str | Path, data: Dataset | str = "", tell: Callable[[str], None] = say
) -> Path:
    """Write report.html and the figures into a run directory; return the path of the page.

    The figures come from the run directory alone. The page also shows test pictures if the data is
    available, and says so if it is not.

    Args:
        run: a finished run, or its directory.
        data: as in `evaluate`.
        tell: receives a sentence if the data is not available, or if a class has no test picture.

    Raises:
        UserError: there is no such run; it is not finished, damaged, or its folder cannot be
            written; or `data` is not the data that it was trained on.

    Examples:
        >>> write_report(run).name
        'report.html'
    """
    # matplotlib takes 0.3 s to load.
    from hundredfold.report.figures import draw_figures, save_figures  # noqa: PLC0415
    from hundredfold.report.page import render_report  # noqa: PLC0415

    run = find_run(run)
    if run.path.is_dir() and not run.finished:
        raise UserError(f"{run} is not finished, so there is nothing to report yet.")
    dataset, missing = run_data_if_any(run, data)
    if missing:
        tell(f"The report has no pictures: {missing}")
    try:
        run_levels = scored_predictions(run)
        if run_levels[0].untested:
            tell(run_levels[0].untested)
        figures = draw_figures(run, run_levels)
        test = dataset.test if dataset else None
        page = render_report(run, run_levels, figures, test, missing)
    except KeyError as error:
        raise UserError(f"{run} is damaged: it lacks {error}.") from error
    save_figures(run, figures)
    return run.save_report(page)
