"""`hundredfold predict`."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import box
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from hundredfold.cli.table import show_table
from hundredfold.console import console, error_console
from hundredfold.errors import UserError
from hundredfold.evaluate import run_data
from hundredfold.figures import draw_prediction, to_png
from hundredfold.predict import Prediction, Predictor, find_pictures, predict_files
from hundredfold.run import Run

Found = list[tuple[str, Prediction | UserError]]


@dataclass(frozen=True)
class Options:
    """Classify pictures: ranked classes with calibrated probabilities, fine and coarse."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files, folders (with all folders within), https:// addresses, or - for a picture from
    standard input."""
    test: int = -1
    """Classify the test picture of this number (from 0) instead, and draw it."""
    top: int = 5
    """How many classes to show."""
    format: Literal["table", "json", "csv"] = "table"
    """How to write the result; json and csv have every picture, and why any failed."""
    data: str = ""
    """Where the run's data is now, as in train; only for --test."""
    device: str = "auto"
    """As in train."""


def main(arguments: Sequence[str]) -> None:
    """Classify pictures."""
    options = tyro.cli(Options, prog="hundredfold predict", args=arguments)
    run = Run(options.run)
    predictor = Predictor.load(run, options.device)
    if options.test >= 0:
        _show_test(run, predictor, options.test, options.data)
        return
    if not options.pictures:
        raise UserError("Name pictures to classify: files, folders, addresses, - or --test 17.")
    found = list(_predict_all(predictor, options.pictures))
    write = {"table": _write_table, "json": _write_json, "csv": _write_csv}[options.format]
    write(found, options.top)
    failed = [outcome for _, outcome in found if isinstance(outcome, UserError)]
    for error in failed:
        error_console.print(f"[red]error:[/] {escape(str(error))}")
    if failed:
        raise UserError(f"{len(failed)} of {len(found)} pictures could not be classified.")


def _predict_all(
    predictor: Predictor, pictures: Sequence[str]
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Classify whatever each source names, in its order."""
    paths: list[str | Path] = []
    for source in pictures:
        if source == "-":
            yield "-", predictor(sys.stdin.buffer.read())
        elif Path(source).is_dir():
            paths += find_pictures(Path(source))
        else:
            paths.append(source)
    yield from track(
        predict_files(predictor, paths),
        "Classifying",
        total=len(paths),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal or len(paths) < 2,
    )


def _write_table(found: Found, top: int) -> None:
    shown = [(name, outcome) for name, outcome in found if isinstance(outcome, Prediction)]
    if len(shown) == 1:
        console.print(_one(*shown[0], top))
    elif shown:
        _show_many(shown)


def _one(name: str, prediction: Prediction, top: int) -> Table:
    """Return a picture's ranked classes, and its superclasses beside them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(name), title_justify="left")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if prediction.superclasses:
        table.add_column("superclass")
        table.add_column("probability", justify="right")
    ranked = zip_longest(prediction.classes[:top], prediction.superclasses[:top])
    for row in ranked:
        cells = ((escape(s.name), f"{s.probability:.1%}") if s else ("", "") for s in row)
        flat = [cell for pair in cells for cell in pair]
        table.add_row(*flat[: len(table.columns)])
    return table


def _show_many(shown: list[tuple[str, Prediction]]) -> None:
    """Print a row a picture."""
    coarse = ["superclass", ""] if shown[0][1].superclasses else []
    rows = []
    for name, prediction in shown:
        best = [prediction.classes[0], *prediction.superclasses[:1]]
        rows.append([name, *(cell for s in best for cell in (s.name, f"{s.probability:.1%}"))])
    show_table(["picture", "class", "", *coarse], rows, left=2)


def _write_json(found: Found, top: int) -> None:
    rows: list[dict[str, Any]] = []
    for name, outcome in found:
        if isinstance(outcome, UserError):
            rows.append({"picture": name, "error": str(outcome)})
            continue
        levels = {"classes": outcome.classes, "superclasses": outcome.superclasses}
        scores = {key: [s._asdict() for s in value[:top]] for key, value in levels.items() if value}
        rows.append({"picture": name, **scores})
    print(json.dumps(rows, indent=2, ensure_ascii=False))


def _write_csv(found: Found, top: int) -> None:
    """Write a line a picture: its classes by rank, the best superclass, or why it failed."""
    ranks = range(1, top + 1)
    head = [f"{name}_{i}" for i in ranks for name in ("class", "probability")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", *head, "superclass", "superclass_probability", "error"])
    for name, outcome in found:
        if isinstance(outcome, UserError):
            writer.writerow([name, *[""] * (2 * top + 2), outcome])
            continue
        fine = [cell for score in outcome.classes[:top] for cell in score]
        coarse = list(outcome.superclasses[0]) if outcome.superclasses else ["", ""]
        writer.writerow([name, *fine, *[""] * (2 * top - len(fine)), *coarse, ""])


def _show_test(run: Run, predictor: Predictor, index: int, data: str) -> None:
    """Show one test picture with its label and prediction, and draw it into the run."""
    image, label = run_data(run, data).test_picture(index)
    prediction = predictor([image])[0]
    path = run.figure(f"test-{index}.png", to_png(draw_prediction(image, label, prediction.label)))
    console.print(_one(f"test picture {index}: {label}", prediction, 5))
    console.print(f"Picture  {escape(str(path))}")
