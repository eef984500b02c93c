"""Predict with a trained model: pictures in, ranked classes with calibrated probabilities out."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from hundredfold.inference.logits import BATCH, predict_logits
from hundredfold.metrics.scores import coarse_probabilities
from hundredfold.models.info import ModelInfo
from hundredfold.pictures.prepare import Picture, is_single_picture, load_picture
from hundredfold.pictures.walk import HIDDEN, walk
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.device import pick_device
from hundredfold.support.errors import UserError, first_few

THREADS = 8
"""That read pictures, at most: each may hold a large one."""


class Score(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float
    """0..1, calibrated where the run held pictures out from training."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a picture."""

    classes: tuple[Score, ...]
    """All classes, the most probable first."""
    superclasses: tuple[Score, ...]
    """All superclasses by summed probability, the most probable first; empty without a hierarchy
    above the model's classes."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0].name

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.classes[0].probability

    def best(self, top: int) -> "Prediction":
        """Return only the so many most probable classes and superclasses."""
        return Prediction(self.classes[:top], self.superclasses[:top])

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return what JSON can hold: `classes`, and `superclasses` where there are any."""
        levels = {"classes": self.classes, "superclasses": self.superclasses}
        return {key: [s._asdict() for s in value] for key, value in levels.items() if value}


@dataclass(frozen=True)
class Predictor:
    """A trained model that takes pictures as they come."""

    model: nn.Module
    info: ModelInfo

    @classmethod
    def load(cls, run: Run | str | Path, device: str = "auto") -> "Predictor":
        """Load a run's model.

        Args:
            run: the run, its directory, or `strong`, the model that comes with hundredfold; of its
                files only model.json, weights.safetensors and metrics.json are read.
            device: as in `Config.device`.

        Raises:
            UserError: no such run or device, or the run has no weights or is damaged.
        """
        run = find_run(run)
        return cls(run.model(pick_device(device)), run.info())

    @overload
    def __call__(
        self, pictures: str | os.PathLike[str] | bytes | BinaryIO | Image.Image
    ) -> Prediction: ...
    @overload
    def __call__(self, pictures: list[Picture]) -> list[Prediction]: ...
    @overload
    def __call__(
        self, pictures: npt.NDArray[np.uint8] | Tensor
    ) -> Prediction | list[Prediction]: ...

    def __call__(self, pictures: Picture | list[Picture]) -> Prediction | list[Prediction]:
        """Predict a picture, or each of several.

        Args:
            pictures: one (see `pictures.Picture`), a list of them, an array (N, H, W, C) or a
                tensor (N, C, H, W) of uint8.

        Returns:
            A prediction, or a list of them for several pictures.

        Raises:
            UserError: a picture cannot be read.
        """
        if is_single_picture(pictures):
            return self._predict([pictures])[0]  # type: ignore[list-item]
        return self._predict(list(pictures))  # type: ignore[arg-type]  # it is no single one

    def logits(self, pictures: Sequence[Picture]) -> Tensor:
        """Return the (N, C) float32 logits of pictures."""
        size = self.info.image_size
        images = [load_picture(picture, size) for picture in pictures]
        empty = torch.empty(0, 3, size, size, dtype=torch.uint8)
        return predict_logits(self.model, torch.stack(images) if images else empty, self.info)

    def _predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        return predictions(self.logits(pictures), self.info)


def predictions(logits: Tensor, info: ModelInfo) -> list[Prediction]:
    """Return logits (N, C) as ranked classes with calibrated probabilities."""
    logits = logits / info.temperature
    fine = rank(logits.softmax(1), info.classes)
    coarse: list[tuple[Score, ...]] = [()] * len(fine)
    if info.superclasses and info.superclasses != info.classes:
        coarse = rank(coarse_probabilities(logits, info.parents), info.superclasses)
    return [Prediction(*both) for both in zip(fine, coarse, strict=True)]


def rank(probabilities: Tensor, names: Sequence[str]) -> list[tuple[Score, ...]]:
    """Return the scores of each row of (N, C) probabilities, the highest first."""
    values, order = probabilities.sort(dim=1, descending=True, stable=True)
    rows = zip(values.tolist(), order.tolist(), strict=True)
    return [
        tuple(Score(names[i], value) for value, i in zip(row, indices, strict=True))
        for row, indices in rows
    ]


def predict_many(
    predictor: Predictor, pictures: Iterable[tuple[str, Picture | UserError]]
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Predict any number of pictures: read in threads, a batch at a time in memory.

    Args:
        predictor: what to predict with.
        pictures: each with a name; a path is read only when its turn comes. What is an error
            already passes through.

    Yields:
        Each name, in order, with its prediction, or with why there is none.
    """
    remaining, size = iter(pictures), predictor.info.image_size
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        while batch := list(islice(remaining, BATCH)):
            names, given = zip(*batch, strict=True)
            read = list(pool.map(partial(_try_to_load, size=size), given))
            images = [image for image in read if isinstance(image, Tensor)]
            found: Iterator[Prediction] = iter(())
            if images:
                logits = predict_logits(predictor.model, torch.stack(images), predictor.info)
                found = iter(predictions(logits, predictor.info))
            for name, image in zip(names, read, strict=True):
                yield name, image if isinstance(image, UserError) else next(found)


def _try_to_load(picture: Picture | UserError, size: int) -> Tensor | UserError:
    if isinstance(picture, UserError):
        return picture
    try:
        return load_picture(picture, size)
    except UserError as error:
        return error


def find_pictures(folder: Path, tell: Callable[[str], None] = print) -> list[Path]:
    """Return all pictures in a folder and in those within it, in natural order, as training does.

    Args:
        folder: where to look.
        tell: takes a sentence for the user where files were passed over.

    Raises:
        UserError: there are none, or a link leads back to a folder above it.
    """
    found = walk(folder)
    passed = [f"{name} ({why})" for name, why in found.skipped if why != HIDDEN]
    more = f"Passed over in {folder}: {first_few(passed)}." if passed else ""
    if not found.pictures:
        raise UserError(f"{folder} holds no pictures (jpg, png, webp, ...). {more}".rstrip())
    if more:
        tell(more)
    return [path for path, _ in found.pictures]
