"""`hundredfold report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.report.report import write_report
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, escape


def main(arguments: Sequence[str]) -> None:
    """Write the report of a run."""
    tyro.cli(report_run, prog="hundredfold report", args=arguments)


def report_run(run: Annotated[Path, tyro.conf.Positional], /, data: str = "") -> None:
    """Write the report of a run: report.html, a self-contained page, and its figures as files.

    Args:
        run: The run directory.
        data: Where the data is now, as --data of train. Empty for the place recorded in the run.
    """
    found = find_run(run)
    path = write_report(found, data, lambda text: console.print(escape(text), style="yellow"))
    console.print(f"Report   {escape(str(path))}")
    console.print(f"Figures  {escape(str(found.figures))}")
