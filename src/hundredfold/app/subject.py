"""What the app shows: a model, and as far as its data is at hand, pictures to compare with."""

from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from hundredfold.data.dataset import Dataset
from hundredfold.evaluation.explain import (
    SimilarPictures,
    find_similar_by_features,
    normalized_features,
    occlusion_map,
)
from hundredfold.inference.predict import Prediction, Predictor, rank_predictions
from hundredfold.pictures.prepare import load_picture

EXAMPLES = 20
"""Test pictures to try."""
LIKE = 6
"""Training pictures to show beside a picture."""


@dataclass(frozen=True)
class Explained:
    """A picture with what the model makes of it."""

    image: Tensor
    """(3, S, S) uint8, as the model is given it."""
    prediction: Prediction
    heat: Tensor
    """(S, S) float32: what speaks for its class (`explain.occlusion_map`)."""
    like: SimilarPictures | None
    """Training pictures like it; None where the data is not at hand."""


@dataclass(frozen=True)
class Subject:
    """A model to ask."""

    name: str
    predictor: Predictor
    dataset: Dataset | None
    """Where likenesses and examples come from; None where it is not at hand."""
    features: Tensor
    """(N, D) of its training pictures (`explain.normalized_features`)."""
    turn: Lock
    """One picture at a time: each may fill a good part of the memory, and all cores work for it."""

    def predict(self, picture: bytes) -> Prediction:
        """Classify a file's content.

        Raises:
            UserError: it is no picture.
        """
        with self.turn:
            return self.predictor(picture)

    def explain(self, picture: bytes) -> Explained:
        """Classify a file's content, and say why.

        Raises:
            UserError: it is no picture.
        """
        with self.turn:
            image = load_picture(picture, self.predictor.info.image_size)
            prediction = rank_predictions(self.predictor.logits([image]), self.predictor.info)[0]
            target = self.predictor.info.classes.index(prediction.label)
            heat = occlusion_map(self.predictor, image, target)
            like = None
            if self.dataset:
                like = find_similar_by_features(self.features, self.predictor, image, LIKE)
        return Explained(image, prediction, heat, like)

    def examples(self) -> list[tuple[Tensor, str]]:
        """Return up to EXAMPLES test pictures, evenly spread over the classes, with their class."""
        if not self.dataset:
            return []
        order = self.dataset.test.labels.argsort(stable=True).tolist()
        count = min(EXAMPLES, len(order))
        return [self.dataset.test_picture(order[i * len(order) // count]) for i in range(count)]


def make_subject(name: str, predictor: Predictor, dataset: Dataset | None) -> Subject:
    """Return the subject of a model, with the features of all training pictures computed once.

    Args:
        name: what to call it.
        predictor: the model.
        dataset: as in `Subject`.
    """
    features = normalized_features(predictor, dataset.train.parts()) if dataset else torch.empty(0)
    return Subject(name, predictor, dataset, features, Lock())
