"""Suggest which unlabelled pictures to label next: those from which a model would learn most."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.inference.features import predict_with_features
from hundredfold.inference.logits import batch_size
from hundredfold.inference.predict import (
    MAX_THREADS,
    Prediction,
    Predictor,
    rank_predictions,
    try_to_load,
)
from hundredfold.models.info import ModelInfo
from hundredfold.pictures.load import data_uri, load_picture
from hundredfold.support.console import say
from hundredfold.support.errors import UserError
from hundredfold.support.html import render_page
from hundredfold.support.text import cell

UNSURE = 5
"""Of this many times the number of suggestions, those that the model is least sure of, the ones
that differ most are suggested."""
THUMBNAIL = 160
"""Side of a picture on the page in pixels."""
HEADER = ("rank", "picture", "class", "probability", "second class", "its probability")


class Candidates(NamedTuple):
    """Pictures that may be suggested."""

    paths: list[Path]
    logits: Tensor
    """(N, C), not calibrated."""
    features: Tensor
    """(N, D)."""


class Suggestion(NamedTuple):
    """A picture to label."""

    path: Path
    prediction: Prediction


def suggest(
    predictor: Predictor,
    pictures: Sequence[Path],
    count: int = 50,
    *,
    tell: Callable[[str], None] = say,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Suggestion]:
    """Return the pictures to label next, the most useful first.

    Args:
        predictor: a model that was trained on the pictures that have labels.
        pictures: paths of the pictures that have none.
        count: largest number of suggestions.
        tell: called with a sentence for the user about each picture that cannot be read.
        advance: receives the number of pictures just classified.

    Raises:
        UserError: `count` is below 1, or no picture can be read.

    Examples:
        >>> chosen = suggest(Predictor.load(run), [Path("cat.jpg")])
        >>> chosen[0].path.name
        'cat.jpg'
    """
    if count < 1:
        raise UserError(f"--count is {count}, but must be at least 1.")
    info, kept = predictor.info, Candidates([], torch.empty(0), torch.empty(0))
    total, read = torch.zeros(()), 0
    load = partial(try_to_load, size=info.image_size, fit=info.fit)
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(pictures), batch_size(info)):
            batch = pictures[start : start + batch_size(info)]
            loaded = dict(zip(batch, pool.map(load, batch), strict=True))
            images = {path: image for path, image in loaded.items() if isinstance(image, Tensor)}
            for path in loaded.keys() - images.keys():
                tell(f"Left out: {loaded[path]}")
            if images:
                both = predict_with_features(predictor.model, torch.stack([*images.values()]), info)
                kept = _least_sure(kept, Candidates([*images], *both), info, UNSURE * count)
                total = total + both[1].double().sum(0)
                read += len(images)
            advance(len(batch))
    if not read:
        raise UserError("None of the pictures can be read.")
    probabilities = (kept.logits / info.temperature).softmax(1)
    mean = (total / read).float()
    chosen = choose_unsure_and_different(kept.features, probabilities, count, mean)
    predictions = rank_predictions(kept.logits[chosen], info)
    return [Suggestion(kept.paths[i], found) for i, found in zip(chosen, predictions, strict=True)]


def _least_sure(kept: Candidates, new: Candidates, info: ModelInfo, most: int) -> Candidates:
    """Return the least sure of two groups of pictures: there may be too many to keep all."""
    paths = [*kept.paths, *new.paths]
    logits = torch.cat([kept.logits.view(-1, new.logits.shape[1]), new.logits])
    features = torch.cat([kept.features.view(-1, new.features.shape[1]), new.features])
    unsure = _by_margin((logits / info.temperature).softmax(1))[:most]
    return Candidates([paths[i] for i in unsure], logits[unsure], features[unsure])


def _by_margin(probabilities: Tensor) -> Tensor:
    """Return the pictures (N,) in the order of their margins: the least sure first."""
    best = probabilities.topk(2, 1).values
    return (best[:, 0] - best[:, 1]).argsort(stable=True)


def choose_unsure_and_different(
    features: Tensor, probabilities: Tensor, count: int, mean: Tensor | None = None
) -> list[int]:
    """Return pictures that a model is unsure of and that differ from each other.

    A model is unsure where the two most probable classes are close (margin sampling; Settles,
    "Active Learning Literature Survey", 2009, section 3.1). Of the UNSURE * count least sure
    pictures, the first is the least sure. Each next one is the farthest, by the cosine of the
    centred features, from those before it (Sener and Savarese, "Active Learning for Convolutional
    Neural Networks: A Core-Set Approach", 2018, section 4.1).

    Args:
        features: (N, D).
        probabilities: (N, C), C at least 2.
        count: largest number of pictures.
        mean: (D,) mean of the features of all pictures; None if these are all.

    Returns:
        Up to `count` different numbers below N, the most useful first.
    """
    unsure = _by_margin(probabilities)[: UNSURE * count]
    rows = F.normalize(features[unsure] - (features.mean(0) if mean is None else mean))
    distance, chosen = torch.full((len(unsure),), torch.inf), [0]
    while len(chosen) < min(count, len(unsure)):
        distance = torch.minimum(distance, 1 - rows @ rows[chosen[-1]])
        distance[chosen[-1]] = -torch.inf
        chosen.append(int(distance.argmax()))
    found: list[int] = unsure[chosen].tolist()
    return found


def suggestions_csv(suggestions: Sequence[Suggestion]) -> str:
    """Return suggestions as a table with HEADER."""
    table = csv.writer(text := io.StringIO(), lineterminator="\n")
    table.writerow(HEADER)
    for rank, (path, prediction) in enumerate(suggestions, 1):
        scores = [value for score in prediction.classes[:2] for value in score]
        table.writerow([rank, cell(str(path)), *map(cell, scores)])
    return text.getvalue()


def render_suggestions(suggestions: Sequence[Suggestion], model: str, total: int) -> str:
    """Return suggestions as a self-contained HTML page.

    Args:
        suggestions: what to show.
        model: name of the model.
        total: number of pictures that were looked at.
    """
    sources = [data_uri(load_picture(path, THUMBNAIL)) for path, _ in suggestions]
    return render_page(
        "hundredfold.evaluation",
        "suggestions.html",
        suggestions=list(zip(suggestions, sources, strict=True)),
        model=model,
        total=total,
    )
