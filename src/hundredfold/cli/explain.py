"""`hundredfold explain`."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from hundredfold.cli.at_hand import data_at_hand
from hundredfold.cli.choose import choose
from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.evaluate import run_data
from hundredfold.evaluation.explain import caption_similar, find_similar, occlusion_map
from hundredfold.figures.explanation import draw_explanation
from hundredfold.figures.style import to_png
from hundredfold.inference.predict import Predictor, rank_predictions
from hundredfold.pictures.prepare import load_picture
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.console import console, escape
from hundredfold.support.errors import UserError
from hundredfold.support.text import plural

MOST_LIKE = 64
"""Training pictures to show beside the picture."""


@dataclass(frozen=True)
class ExplainOptions:
    """Explain a prediction: what in a picture speaks for it, and what the picture is like.

    The map shows what the class's log-probability loses where a window hides the picture.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    picture: Annotated[str, tyro.conf.Positional] = ""
    """A file or an https:// address."""
    test: int = -1
    """Explain the test picture of this number (from 0) instead; this needs the data."""
    target: str = ""
    """The class to explain; empty for the predicted one."""
    like: int = 8
    """How many training pictures like it to show; 0 does without the data."""
    data: str = ""
    """Where the run's data is now, as in train."""
    device: str = "auto"
    """As in train."""


def main(arguments: Sequence[str]) -> None:
    """Explain a prediction."""
    options = tyro.cli(ExplainOptions, prog="hundredfold explain", args=arguments)
    if not 0 <= options.like <= MOST_LIKE:
        raise UserError(f"--like is {options.like}, but must be between 0 and {MOST_LIKE}.")
    if bool(options.picture) == (options.test >= 0):
        raise UserError("Name a picture to explain, a file or an address, or --test 17.")
    run = find_run(options.run)
    predictor = Predictor.load(run, options.device)
    dataset = _data(run, options)
    image, name, label = _picture(options, predictor, dataset)
    prediction = rank_predictions(predictor.logits([image]), predictor.info)[0]
    classes = {name: i for i, name in enumerate(predictor.info.classes)}
    target = options.target or prediction.label
    heat = occlusion_map(predictor, image, choose("class", target, classes))
    like = _like(predictor, image, dataset, options.like) if dataset and options.like else []
    heading = f"{prediction.label}, {prediction.probability:.0%}"
    heading += f" (label: {label})" if label else ""
    figure = draw_explanation(image, heat, heading, target, like)
    path = run.save_figure(f"explain-{name}.png", to_png(figure))
    console.print(f"{escape(heading)}\nExplained  {escape(str(path))}")


def _data(run: Run, options: ExplainOptions) -> Dataset | None:
    """Return the run's data, if it is needed and at hand; a test picture needs it."""
    if options.test >= 0:
        return run_data(run, options.data)
    return data_at_hand(run, options.data, "pictures like it") if options.like else None


def _picture(
    options: ExplainOptions, predictor: Predictor, dataset: Dataset | None
) -> tuple[Tensor, str, str]:
    """Return the picture to explain, what to call its figure, and its label where it has one."""
    if options.test < 0:
        image = load_picture(options.picture, predictor.info.image_size)
        mark = hashlib.blake2b(options.picture.encode(errors="replace"), digest_size=3).hexdigest()
        stem = re.sub(r"[^\w-]+", "-", Path(options.picture).stem)[:60]
        return image, f"{stem}-{mark}", ""  # two folders may have a picture of the same name
    assert dataset  # noqa: S101  # loaded whenever --test is given
    image, label = dataset.test_picture(options.test)
    return image, f"test-{options.test}", label


def _like(
    predictor: Predictor, image: Tensor, dataset: Dataset, count: int
) -> list[tuple[Tensor, str]]:
    """Return the training pictures most like a picture, with captions."""
    with console.status(f"Comparing with {plural(len(dataset.train), 'training picture')}"):
        found = find_similar(predictor, image, dataset.train, count)
    return caption_similar(found, dataset.train, dataset.classes)
