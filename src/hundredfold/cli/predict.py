"""`hundredfold predict`."""

import csv
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import box
from rich.progress import track
from rich.table import Table

from hundredfold.cli.table import show_table
from hundredfold.evaluation.evaluate import run_data
from hundredfold.figures.predictions import draw_prediction
from hundredfold.figures.style import to_png
from hundredfold.inference.predict import Prediction, Predictor, find_pictures, predict_many
from hundredfold.metrics.scores import format_probability
from hundredfold.pictures.prepare import Picture
from hundredfold.pictures.urls import is_address
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run
from hundredfold.runs.run import Run, is_run
from hundredfold.support.console import console, error_console, escape, print_json, whole
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.text import cell, plural

Named = tuple[str, Picture | UserError]
"""A picture to classify, with what to call it; or why it cannot be."""
Found = Iterator[tuple[str, Prediction | UserError]]


@dataclass(frozen=True)
class PredictOptions:
    """Classify pictures: ranked classes with calibrated probabilities, fine and coarse."""

    run: Annotated[str, tyro.conf.Positional]
    """The run directory; where a picture, a folder of pictures or an address comes first, the model
    `strong` that comes with hundredfold, trained on CIFAR-100."""
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
    options = tyro.cli(PredictOptions, prog="hundredfold predict", args=arguments)
    if _is_picture_source(options.run):
        error_console.print(BY_DEFAULT)
        pictures = (options.run, *options.pictures)
        options = dataclasses.replace(options, run=BUNDLED[0], pictures=pictures)
    if options.top < 1:
        raise UserError(f"--top is {options.top}, but must be at least 1.")
    run = find_run(options.run)
    if not run.path.exists():
        raise UserError(f"There is no run and no picture at {options.run}.")
    if bool(options.pictures) == (options.test >= 0):
        raise UserError("Name pictures to classify (files, folders, addresses, -) or --test 17.")
    predictor = Predictor.load(run, options.device)
    if options.test >= 0:
        named = [_test_picture(run, predictor, options.test, options.data)]
    else:
        named = [found for source in options.pictures for found in _pictures(source)]
    failures: list[UserError] = []
    found = _collect(_predict_all(predictor, named), options.top, failures)
    writers: dict[str, Callable[[Found], None]] = {
        "table": _write_table,
        "json": _write_json,
        "csv": partial(_write_csv, options.top),
    }
    writers[options.format](found)
    for error in failures:
        error_console.print(f"[red]error:[/] {escape(str(error))}")
    if failures:
        raise UserError(
            f"{len(failures):,} of {plural(len(named), 'picture')} could not be classified."
        )


def _is_picture_source(text: str) -> bool:
    """Return whether a first argument names pictures rather than a run."""
    path = expanded(text)
    folder = path.is_dir() and not is_run(path)
    return text == "-" or is_address(text) or path.is_file() or folder


def _pictures(source: str) -> list[Named]:
    """Return the pictures that a source names, or why there are none."""
    if source == "-":
        return [(source, sys.stdin.buffer)]
    try:
        paths: list[Path | str] = [source]
        if (folder := expanded(source)).is_dir():
            paths = [*find_pictures(folder, _tell)]
        return [(str(path), path) for path in paths]
    except UserError as error:
        return [(source, error)]


def _tell(sentence: str) -> None:
    error_console.print(escape(sentence))


def _test_picture(run: Run, predictor: Predictor, index: int, data: str) -> Named:
    """Return a test picture, named with its label; draw it with its prediction into the run."""
    image, label = run_data(run, data).test_picture(index)
    figure = draw_prediction(image, label, predictor([image])[0].label)
    path = run.save_figure(f"test-{index}.png", to_png(figure))
    error_console.print(f"Picture  {escape(str(path))}")
    return f"test picture {index}: {label}", image


def _predict_all(
    predictor: Predictor, pictures: Sequence[Named]
) -> Iterable[tuple[str, Prediction | UserError]]:
    """Classify pictures, with a progress bar where there is a terminal."""
    return track(
        predict_many(predictor, pictures),
        "Classifying",
        total=len(pictures),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal or len(pictures) < 2,
    )


def _collect(
    found: Iterable[tuple[str, Prediction | UserError]], top: int, failures: list[UserError]
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Pass outcomes on with only the best classes of each, and take note of failures."""
    for name, outcome in found:
        if isinstance(outcome, UserError):
            failures.append(outcome)
            yield name, outcome
        else:
            yield name, outcome.best(top)


def _write_table(found: Found) -> None:
    shown = [(name, outcome) for name, outcome in found if isinstance(outcome, Prediction)]
    if len(shown) == 1:
        console.print(_one(*shown[0]))
    elif shown:
        _show_many(shown)


def _one(name: str, prediction: Prediction) -> Table:
    """Return a picture's ranked classes, and its superclasses beside them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(name), title_justify="left")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if prediction.superclasses:
        table.add_column("superclass")
        table.add_column("probability", justify="right")
    ranked = zip_longest(prediction.classes, prediction.superclasses)
    for row in ranked:
        pairs = (
            (escape(s.name), format_probability(s.probability)) if s else ("", "") for s in row
        )
        flat = [text for pair in pairs for text in pair]
        table.add_row(*flat[: len(table.columns)])
    return whole(table)


def _show_many(shown: list[tuple[str, Prediction]]) -> None:
    """Print a row a picture."""
    coarse = ["superclass", ""] if shown[0][1].superclasses else []
    rows = []
    for name, prediction in shown:
        best = [prediction.classes[0], *prediction.superclasses[:1]]
        cells = ((score.name, format_probability(score.probability)) for score in best)
        rows.append([name, *(text for pair in cells for text in pair)])
    show_table(["picture", "class", "", *coarse], rows, left=2)


def _write_json(found: Found) -> None:
    rows: list[dict[str, Any]] = []
    for name, outcome in found:
        if isinstance(outcome, UserError):
            rows.append({"picture": name, "error": str(outcome)})
            continue
        rows.append({"picture": name, **outcome.as_json()})
    print_json(rows)


def _write_csv(top: int, found: Found) -> None:
    """Write a line a picture: its classes by rank, the best superclass, or why it failed."""
    ranks = range(1, top + 1)
    head = [f"{name}_{i}" for i in ranks for name in ("class", "probability")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", *head, "superclass", "superclass_probability", "error"])
    for name, outcome in found:
        if isinstance(outcome, UserError):
            writer.writerow(map(cell, [name, *[""] * (2 * top + 2), str(outcome)]))
            continue
        fine = [value for score in outcome.classes for value in score]
        coarse = list(outcome.superclasses[0]) if outcome.superclasses else ["", ""]
        row = [name, *fine, *[""] * (2 * top - len(fine)), *coarse, ""]
        writer.writerow(map(cell, row))
