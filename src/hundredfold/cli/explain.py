"""`hundredfold explain`."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from hundredfold.cli.lookup import look_up
from hundredfold.cli.optional_data import optional_data, say_if_unfinished
from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import run_data
from hundredfold.evaluation.explain import caption_similar, find_similar, occlusion_map
from hundredfold.figures.explanation import draw_explanation
from hundredfold.figures.style import to_png
from hundredfold.inference.predict import Predictor
from hundredfold.metrics.scores import format_probability
from hundredfold.pictures.load import load_picture
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.console import console, escape
from hundredfold.support.errors import UserError
from hundredfold.support.text import plural

MOST_SIMILAR = 64
"""Largest number of similar training pictures to draw."""


@dataclass(frozen=True)
class ExplainOptions:
    """Explain a prediction: draw which parts of the picture support it, and similar pictures.

    The map shows how far the log-probability of the class falls when a window hides each part of
    the picture. The similar pictures are training pictures.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    picture: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PICTURE]")] = ""
    """The picture: a file or an https:// address."""
    test: int = -1
    """Explain the test picture of this number (from 0) instead. This needs the data."""
    target: str = ""
    """The class to explain; empty for the predicted class."""
    like: int = 8
    """Number of similar training pictures to draw; 0 for none, which does not need the data."""
    data: str = ""
    """Where the data is now, as --data of train. Empty for the place recorded in the run."""
    device: str = "auto"
    """The device, as in train."""


def main(arguments: Sequence[str]) -> None:
    """Explain a prediction."""
    options = tyro.cli(ExplainOptions, prog="hundredfold explain", args=arguments)
    if not 0 <= options.like <= MOST_SIMILAR:
        raise UserError(f"--like is {options.like}, but must be between 0 and {MOST_SIMILAR}.")
    if bool(options.picture) == (options.test >= 0):
        raise UserError(
            "Name one picture to explain: either a file or an https:// address, or a test picture, "
            "such as --test 17."
        )
    run = find_run(options.run)
    predictor = Predictor.load(run, options.device)
    say_if_unfinished(run)
    dataset = _data(run, options)
    image, name, label = _picture(options, predictor, dataset)
    prediction = predictor([image])[0]
    classes = {name: i for i, name in enumerate(predictor.info.classes)}
    target = options.target or prediction.label
    heat = occlusion_map(predictor, image, look_up("class", target, classes))
    similar = []
    if dataset and options.like:
        similar = _similar(predictor, image, dataset, options.like)
    heading = f"{prediction.label}, {format_probability(prediction.probability)}"
    heading += f" (label: {label})" if label else ""
    heading += "; probably none of these" if prediction.is_foreign else ""
    figure = draw_explanation(image, heat, heading, target, similar)
    path = run.save_figure(f"explain-{name}.png", to_png(figure))
    console.print(f"{escape(heading)}\nFigure  {escape(str(path))}")


def _data(run: Run, options: ExplainOptions) -> Dataset | None:
    """Return the run's data, or None if it is not needed or was not found.

    Raises:
        UserError: a test picture is asked for, and the data was not found.
    """
    if options.test >= 0:
        return run_data(run, options.data)
    return optional_data(run, options.data, "similar training pictures") if options.like else None


def _picture(
    options: ExplainOptions, predictor: Predictor, dataset: Dataset | None
) -> tuple[Tensor, str, str]:
    """Return the picture to explain, the name of its figure, and its label or an empty text."""
    if options.test < 0:
        image = load_picture(options.picture, predictor.info.image_size, predictor.info.fit)
        mark = hashlib.blake2b(options.picture.encode(errors="replace"), digest_size=3).hexdigest()
        stem = re.sub(r"[^\w-]+", "-", Path(options.picture).stem)[:60]
        return image, f"{stem}-{mark}", ""  # two folders may have pictures of the same name
    assert dataset  # noqa: S101  # loaded whenever --test is given
    image, label = dataset.test_picture(options.test)
    return image, f"test-{options.test}", label


def _similar(
    predictor: Predictor, image: Tensor, dataset: Dataset, count: int
) -> list[tuple[Tensor, str]]:
    """Return similar training pictures with captions."""
    with console.status(f"Comparing with {plural(len(dataset.train), 'training picture')}"):
        found = find_similar(predictor, image, dataset.train, count)
    return caption_similar(found, dataset.train, dataset.classes)
