"""The model that the app serves, and the pictures that it shows beside its answers."""

import io
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
from hundredfold.inference.predict import Prediction, Predictor
from hundredfold.pictures.load import load_picture, to_image

EXAMPLES = 20
"""Number of test pictures to try."""
SIMILAR = 6
"""Number of similar training pictures to show with a picture."""


@dataclass(frozen=True)
class Explanation:
    """A picture with the model's answer and the reasons for it."""

    image: Tensor
    """(3, S, S) uint8, the picture as the model receives it."""
    prediction: Prediction
    heat: Tensor
    """(S, S) float32 in nats: evidence for the first class (`explain.occlusion_map`)."""
    similar: SimilarPictures | None
    """Similar training pictures; None without the data."""


@dataclass(frozen=True)
class ServedModel:
    """A model that answers one picture at a time, from any thread."""

    name: str
    predictor: Predictor
    dataset: Dataset | None
    """Source of the examples and of the similar training pictures; None if it was not found."""
    features: Tensor
    """(N, D) features of the training pictures (`explain.normalized_features`)."""
    lock: Lock
    """Held for each picture: one picture may fill much of the memory, and uses all cores."""

    @property
    def has_superclasses(self) -> bool:
        """Whether answers have superclasses."""
        info = self.predictor.info
        return bool(info.superclasses) and info.superclasses != info.classes

    def predict(self, picture: bytes) -> Prediction:
        """Classify the content of a picture file.

        Raises:
            UserError: the content cannot be read as a picture.
        """
        with self.lock:
            return self.predictor(picture)

    def explain(self, picture: bytes) -> Explanation:
        """Classify the content of a picture file, and give the reasons.

        Raises:
            UserError: the content cannot be read as a picture.
        """
        with self.lock:
            info = self.predictor.info
            image = load_picture(picture, info.image_size, info.fit)
            prediction = self.predictor([image])[0]
            heat = occlusion_map(self.predictor, image, info.classes.index(prediction.label))
            similar = None
            if self.dataset:
                similar = find_similar_by_features(self.features, self.predictor, image, SIMILAR)
        return Explanation(image, prediction, heat, similar)

    def examples(self) -> list[tuple[bytes, str]]:
        """Return up to EXAMPLES test pictures, spread evenly over the classes.

        Returns:
            The content of a PNG file and the name of the class, for each picture; an empty list
            without the data.
        """
        if not self.dataset:
            return []
        order = self.dataset.test.labels.argsort(stable=True).tolist()
        count = min(EXAMPLES, len(order))
        chosen = [self.dataset.test_picture(order[i * len(order) // count]) for i in range(count)]
        return [(_png(image), label) for image, label in chosen]


def make_served_model(name: str, predictor: Predictor, dataset: Dataset | None) -> ServedModel:
    """Return a model to serve; computes the features of all training pictures once.

    Args:
        name: the name that the page shows.
        predictor: the model.
        dataset: the data that the model was trained on; None if it was not found.

    Examples:
        >>> served = make_served_model("strong", Predictor.load("strong"), load_sample())
        >>> len(served.examples())
        20
    """
    features = normalized_features(predictor, dataset.train.parts()) if dataset else torch.empty(0)
    return ServedModel(name, predictor, dataset, features, Lock())


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG")
    return buffer.getvalue()
