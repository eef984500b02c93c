"""`hundredfold runs`."""

import csv
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hundredfold.metrics.scores import format_metric, metric_name
from hundredfold.runs.table import SCORE_COLUMNS, RunRow, SortKey, list_runs, sort_rows
from hundredfold.support.console import console, escape, make_table, print_json
from hundredfold.support.text import cell

HEAD = (
    "run", "recipe", "labels", "state", "seed", "epochs",
    *(metric_name(key).replace(" ", "\n") for key in SCORE_COLUMNS), "started (UTC)",
)  # fmt: skip


@dataclass(frozen=True)
class RunsOptions:
    """List the runs of a folder, with their results on the test set (single view)."""

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """The folder of the runs, as --out of train."""
    sort: SortKey = "started"
    """Column to sort by: accuracies in descending order, all others in ascending order."""
    where: str = ""
    """List only runs with this text in their name or recipe."""
    format: Literal["table", "json", "csv"] = "table"
    """The output format; json and csv have all digits."""


def main(arguments: Sequence[str]) -> None:
    """List the runs of a folder."""
    options = tyro.cli(RunsOptions, prog="hundredfold runs", args=arguments)
    found = list_runs(options.folder)
    chosen = [row for row in found if options.where in row.name or options.where in str(row.recipe)]
    write = {"table": _write_table, "json": _write_json, "csv": _write_csv}[options.format]
    write(sort_rows(chosen, options.sort))
    if options.format == "table" and not chosen:
        which = f" with {options.where!r} in their name or recipe" if found else ""
        console.print(escape(f"There are no runs{which} in {options.folder}."))


def _write_table(rows: Sequence[RunRow]) -> None:
    if rows:
        console.print(make_table(HEAD, map(_cells, rows), left=range(4)))
    for row in rows:
        if row.reason:
            console.print(f"[yellow]{escape(row.reason)}[/]")


def _cells(row: RunRow) -> list[str]:
    epochs = "" if row.epochs is None else f"{row.epochs_done:.3g}/{row.epochs:.3g}"
    scores = [(key, getattr(row, key)) for key in SCORE_COLUMNS]
    return [
        row.name,
        row.recipe or "",
        row.labels or "",
        row.state,
        "" if row.seed is None else str(row.seed),
        epochs,
        *("" if value is None else format_metric(key, value) for key, value in scores),
        (row.started or "")[:16].replace("T", " "),
    ]


def _write_json(rows: Sequence[RunRow]) -> None:
    print_json([dataclasses.asdict(row) for row in rows])


def _write_csv(rows: Sequence[RunRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(RunRow))
    for row in rows:
        writer.writerow(map(cell, dataclasses.astuple(row)))  # None becomes an empty cell
