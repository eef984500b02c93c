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
from rich.progress import track

from hundredfold.cli.optional_data import say_if_unfinished
from hundredfold.evaluation.evaluate import run_data
from hundredfold.inference.predict import Prediction, Predictor, find_pictures, predict_many
from hundredfold.metrics.scores import format_probability
from hundredfold.pictures.load import Picture
from hundredfold.pictures.urls import is_url
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run
from hundredfold.runs.folder import is_run
from hundredfold.runs.run import Run
from hundredfold.support.console import console, error_console, escape, make_table, print_json
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.text import cell, plural

Named = tuple[str, Picture | UserError]
"""The name of a picture, and the picture or the error that it causes."""
Outcomes = Iterator[tuple[str, Prediction | UserError]]


@dataclass(frozen=True)
class PredictOptions:
    """Classify pictures: ranked classes and superclasses with calibrated probabilities."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory. If a picture, a folder of pictures or an address comes first instead, the
    model `strong` is used, which comes with hundredfold and was trained on CIFAR-100."""
    pictures: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PICTURE ...]")
    ] = ()
    """Files, folders (with their subfolders), https:// addresses, or - for a picture from standard
    input."""
    test: int = -1
    """Classify and draw the test picture of this number (from 0) instead. This needs the data."""
    top: int = 5
    """Number of classes to show."""
    format: Literal["table", "json", "csv"] = "table"
    """The output format; json and csv also list the pictures that could not be read, and why."""
    reject: bool = True
    """Say "none of these" in the table if a picture looks unlike the training pictures."""
    data: str = ""
    """Where the data is now, as --data of train; only for --test. Empty for the place recorded in
    the run."""
    device: str = "auto"
    """The device, as in train."""


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
        raise UserError(
            "Name either pictures to classify (files, folders, https:// addresses, or - for "
            "standard input) or a test picture, such as --test 17."
        )
    predictor = Predictor.load(run, options.device)
    say_if_unfinished(run)
    if options.test >= 0:
        named = [_test_picture(run, predictor, options.test, options.data)]
    else:
        named = [picture for source in options.pictures for picture in _pictures(source)]
    failures: list[UserError] = []
    outcomes = _collect(_predict_all(predictor, named), options.top, failures)
    writers: dict[str, Callable[[Outcomes], None]] = {
        "table": partial(_write_table, options.reject),
        "json": _write_json,
        "csv": partial(_write_csv, options.top),
    }
    writers[options.format](outcomes)
    for error in failures:
        error_console.print(f"[red]error:[/] {escape(str(error))}")
    if failures:
        raise UserError(
            f"{len(failures):,} of {plural(len(named), 'picture')} could not be classified."
        )


def _is_picture_source(text: str) -> bool:
    """Return whether the first argument names pictures, not a run."""
    path = expanded(text)
    folder = path.is_dir() and not is_run(path)
    return text == "-" or is_url(text) or path.is_file() or folder


def _pictures(source: str) -> list[Named]:
    """Return the pictures of a file, a folder, an address or standard input, or an error."""
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
    """Return a test picture, named by its label; draw it with its prediction into the run."""
    # matplotlib takes 0.3 s to load.
    from hundredfold.figures.predictions import draw_prediction  # noqa: PLC0415
    from hundredfold.figures.style import to_png  # noqa: PLC0415

    image, label = run_data(run, data).test_picture(index)
    figure = draw_prediction(image, label, predictor([image])[0].label)
    path = run.save_figure(f"test-{index}.png", to_png(figure))
    error_console.print(f"Picture  {escape(str(path))}")
    return f"test picture {index}: {label}", image


def _predict_all(
    predictor: Predictor, pictures: Sequence[Named]
) -> Iterable[tuple[str, Prediction | UserError]]:
    """Classify pictures, with a progress bar in a terminal."""
    return track(
        predict_many(predictor, pictures),
        "Classifying",
        total=len(pictures),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal or len(pictures) < 2,
    )


def _collect(
    outcomes: Iterable[tuple[str, Prediction | UserError]], top: int, failures: list[UserError]
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Yield each outcome with only its best classes, and add every error to `failures`."""
    for name, outcome in outcomes:
        if isinstance(outcome, UserError):
            failures.append(outcome)
            yield name, outcome
        else:
            yield name, outcome.best(top)


def _write_table(reject: bool, outcomes: Outcomes) -> None:
    shown = [(name, outcome) for name, outcome in outcomes if isinstance(outcome, Prediction)]
    if len(shown) == 1:
        _show_one(*shown[0], reject)
    elif shown:
        _show_many(shown, reject)


def _show_one(name: str, prediction: Prediction, reject: bool) -> None:
    """Print the ranked classes of a picture, and its superclasses next to them."""
    if reject and prediction.is_foreign:
        console.print(
            "This picture probably shows none of the model's classes. The nearest class is "
            f"{escape(prediction.label)}. Among pictures like the training pictures, only "
            f"{prediction.known:.1%} look as unfamiliar as this one."
        )
    head = ["class", "probability", "superclass", "probability"]
    columns = 4 if prediction.superclasses else 2
    rows = []
    for scores in zip_longest(prediction.classes, prediction.superclasses):
        pairs = ((s.name, format_probability(s.probability)) if s else ("", "") for s in scores)
        rows.append([text for pair in pairs for text in pair][:columns])
    console.print(make_table(head[:columns], rows, left=(0, 2), title=name))


def _show_many(shown: list[tuple[str, Prediction]], reject: bool) -> None:
    """Print a table with a row for each picture."""
    coarse = ["superclass", ""] if shown[0][1].superclasses else []
    rows = []
    for name, prediction in shown:
        best = [prediction.classes[0], *prediction.superclasses[:1]]
        texts = [text for s in best for text in (s.name, format_probability(s.probability))]
        if reject and prediction.is_foreign:
            texts[0] = f"none of these (nearest: {texts[0]})"
        rows.append([name, *texts])
    console.print(make_table(["picture", "class", "", *coarse], rows, left=(0, 1, 3)))


def _write_json(outcomes: Outcomes) -> None:
    rows: list[dict[str, Any]] = []
    for name, outcome in outcomes:
        if isinstance(outcome, UserError):
            rows.append({"picture": name, "error": str(outcome)})
            continue
        rows.append({"picture": name, **outcome.as_json()})
    print_json(rows)


def _write_csv(top: int, outcomes: Outcomes) -> None:
    """Write a line for each picture: its ranked classes and best superclass, or the error."""
    ranks = range(1, top + 1)
    head = [f"{name}_{i}" for i in ranks for name in ("class", "probability")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", *head, "superclass", "superclass_probability", "known", "error"])
    for name, outcome in outcomes:
        if isinstance(outcome, UserError):
            writer.writerow(map(cell, [name, *[""] * (2 * top + 3), str(outcome)]))
            continue
        fine = [value for score in outcome.classes for value in score]
        coarse = list(outcome.superclasses[0]) if outcome.superclasses else ["", ""]
        known = "" if outcome.known is None else outcome.known
        row = [name, *fine, *[""] * (2 * top - len(fine)), *coarse, known, ""]
        writer.writerow(map(cell, row))
