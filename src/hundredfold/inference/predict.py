"""Predict pictures with a trained model: ranked classes with calibrated probabilities."""

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

from hundredfold.inference.features import predict_with_features
from hundredfold.inference.known import FOREIGN, Known, known_from
from hundredfold.inference.logits import batch_size, predict_logits
from hundredfold.metrics.scores import coarse_probabilities
from hundredfold.models.info import ModelInfo
from hundredfold.pictures.load import Picture, is_single_picture, load_picture
from hundredfold.pictures.pixels import Fit
from hundredfold.pictures.walk import HIDDEN, walk
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.device import pick_device
from hundredfold.support.errors import UserError, first_few

MAX_THREADS = 8
"""Largest number of threads that read pictures: each may hold a large picture in memory."""


class Score(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float
    """0..1; calibrated if the run held out validation pictures."""


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for a picture."""

    classes: tuple[Score, ...]
    """All classes, the most probable first."""
    superclasses: tuple[Score, ...]
    """All superclasses by summed probability, the most probable first; empty if the model's classes
    have no superclasses."""
    known: float | None = None
    """How well the model knows what the picture shows (0..1): the share of held-out pictures that
    look no more familiar. None if the model cannot say."""

    @property
    def is_foreign(self) -> bool:
        """Whether the picture probably shows none of the classes."""
        return self.known is not None and self.known < FOREIGN

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0].name

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.classes[0].probability

    def best(self, top: int) -> "Prediction":
        """Return a prediction with only the `top` most probable classes and superclasses."""
        return Prediction(self.classes[:top], self.superclasses[:top], self.known)

    def as_json(self) -> dict[str, Any]:
        """Return values that JSON can hold.

        They are `classes`, `superclasses` if there are any, and `known` if the model can say.
        """
        rankings = {"classes": self.classes, "superclasses": self.superclasses}
        values: dict[str, Any] = {
            key: [score._asdict() for score in scores] for key, scores in rankings.items() if scores
        }
        return values if self.known is None else values | {"known": self.known}


@dataclass(frozen=True)
class Predictor:
    """A trained model that accepts pictures in any form."""

    model: nn.Module
    info: ModelInfo
    known: Known | None = None
    """How the model recognises pictures that show none of its classes; None if it cannot."""

    @classmethod
    def load(cls, run: Run | str | Path, device: str = "auto") -> "Predictor":
        """Load a run's model.

        Args:
            run: the run, its directory, or `strong`, the model that comes with hundredfold. Only
                model.json, weights.safetensors, known.safetensors and metrics.json are read.
            device: as in `Config.device`.

        Raises:
            UserError: there is no such run or device, or the run has no weights or is damaged.
        """
        run = find_run(run)
        tensors = run.known_tensors()
        known = known_from(tensors, str(run)) if tensors else None
        return cls(run.model(pick_device(device)), run.info(), known)

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
        """Predict one picture or several.

        Args:
            pictures: a picture in any form of `Picture`, a list of pictures, or several
                as a uint8 array (N, H, W, C) or tensor (N, C, H, W).

        Returns:
            A prediction, or a list of them for several pictures.

        Raises:
            UserError: a picture cannot be read.
        """
        if is_single_picture(pictures):
            return self.predict(self._load([pictures]))[0]  # type: ignore[list-item]
        return self.predict(self._load(list(pictures)))  # type: ignore[arg-type]  # several pictures

    def logits(self, pictures: Sequence[Picture]) -> Tensor:
        """Return the (N, C) float32 logits of pictures."""
        return predict_logits(self.model, self._load(pictures), self.info)

    def predict(self, images: Tensor) -> list[Prediction]:
        """Predict pictures that are prepared already.

        Args:
            images: (N, 3, S, S) uint8, as `load_picture` returns each for the model.
        """
        if self.known is None or not len(images):
            return rank_predictions(predict_logits(self.model, images, self.info), self.info)
        logits, features = predict_with_features(self.model, images, self.info)
        return rank_predictions(logits, self.info, self.known(logits, features).tolist())

    def _load(self, pictures: Sequence[Picture]) -> Tensor:
        size, fit = self.info.image_size, self.info.fit
        images = [load_picture(picture, size, fit) for picture in pictures]
        return torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)


def rank_predictions(
    logits: Tensor, info: ModelInfo, known: Sequence[float] = ()
) -> list[Prediction]:
    """Return ranked classes with calibrated probabilities.

    Args:
        logits: (N, C).
        info: the names of the classes and the temperature.
        known: `Prediction.known` of each picture; empty if the model cannot say.
    """
    logits = logits / info.temperature
    fine = rank_classes(logits.softmax(1), info.classes)
    coarse: list[tuple[Score, ...]] = [()] * len(fine)
    if info.superclasses and info.superclasses != info.classes:
        coarse = rank_classes(coarse_probabilities(logits, info.parents), info.superclasses)
    shares: Sequence[float | None] = known or [None] * len(fine)
    return [Prediction(*row) for row in zip(fine, coarse, shares, strict=True)]


def rank_classes(probabilities: Tensor, names: Sequence[str]) -> list[tuple[Score, ...]]:
    """Return the scores of each row of (N, C) probabilities, the most probable class first."""
    values, order = probabilities.sort(dim=1, descending=True, stable=True)
    rows = zip(values.tolist(), order.tolist(), strict=True)
    return [
        tuple(Score(names[i], value) for value, i in zip(row, indices, strict=True))
        for row, indices in rows
    ]


def predict_many(
    predictor: Predictor, pictures: Iterable[tuple[str, Picture | UserError]]
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Predict any number of pictures, with one batch at a time in memory; threads read the files.

    Args:
        predictor: the model.
        pictures: pairs of a name and a picture, or of a name and an error, which is yielded as it
            is. Files are read in batches as the predictions are consumed.

    Yields:
        Each name, in order, with its prediction or with the error of its picture.
    """
    remaining, info = iter(pictures), predictor.info
    load = partial(try_to_load, size=info.image_size, fit=info.fit)
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        while batch := list(islice(remaining, batch_size(info))):
            names, sources = zip(*batch, strict=True)
            loaded = list(pool.map(load, sources))
            images = [image for image in loaded if isinstance(image, Tensor)]
            predictions: Iterator[Prediction] = iter(())
            if images:
                predictions = iter(predictor.predict(torch.stack(images)))
            for name, image in zip(names, loaded, strict=True):
                yield name, image if isinstance(image, UserError) else next(predictions)


def try_to_load(picture: Picture | UserError, size: int, fit: Fit) -> Tensor | UserError:
    """Return a picture as `load_picture` does, or the error that it raises, or a given error."""
    if isinstance(picture, UserError):
        return picture
    try:
        return load_picture(picture, size, fit)
    except UserError as error:
        return error


def find_pictures(folder: Path, tell: Callable[[str], None] = print) -> list[Path]:
    """Return all pictures in a folder and its subfolders, in the natural order that training uses.

    Args:
        folder: the folder to search.
        tell: called with a sentence for the user if files were skipped.

    Raises:
        UserError: there are no pictures, or a link leads back to a folder above it.
    """
    found = walk(folder)
    skipped = [f"{name} ({why})" for name, why in found.skipped if why != HIDDEN]
    note = f"Skipped in {folder}: {first_few(skipped)}." if skipped else ""
    if not found.pictures:
        raise UserError(f"{folder} holds no pictures (jpg, png, webp, ...). {note}".rstrip())
    if note:
        tell(note)
    return [path for path, _ in found.pictures]
