"""Explain a prediction: the parts of the picture that matter, and similar training pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.data.dataset import Split
from hundredfold.inference.features import predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.inference.predict import Predictor
from hundredfold.models.levels import LAST_FEATURES


@dataclass(frozen=True)
class SimilarPictures:
    """Training pictures whose features are most similar to a picture's, the most similar first."""

    index: Tensor
    """(K,) int64, index in the training split."""
    similarity: Tensor
    """(K,) cosine similarity of the features, -1..1."""


def occlusion_map(predictor: Predictor, image: Tensor, target: int) -> Tensor:
    """Return for each pixel how much the log-probability of a class drops when it is hidden.

    A window a quarter of the picture wide moves over the picture in steps of a sixteenth. At each
    position it covers the picture with the mean by which the model normalises pictures. Each pixel
    gets the mean drop over all windows that cover it. Zeiler and Fergus, "Visualizing and
    Understanding Convolutional Networks", 2014, section 4.2.

    Args:
        predictor: the model to explain; it is not changed.
        image: (3, S, S) uint8, as `load_picture` returns it.
        target: index of the class.

    Returns:
        (S, S) float32 in nats: positive for evidence of the class, negative for evidence against.

    Examples:
        >>> predictor, image = Predictor.load("strong"), load_sample().test.images[0]
        >>> occlusion_map(predictor, image, target=0).shape
        torch.Size([32, 32])
    """
    size = image.shape[-1]
    window, stride = max(size // 4, 1), max(size // 16, 1)
    starts = sorted({*range(0, size - window, stride), size - window})
    grey = (255 * torch.tensor(predictor.info.mean)).round().to(torch.uint8)
    corners = [(top, left) for top in starts for left in starts]
    hidden = image.repeat(len(corners), 1, 1, 1)
    for picture, (top, left) in zip(hidden, corners, strict=True):
        picture[:, top : top + window, left : left + window] = grey[:, None, None]
    logits = predict_logits(predictor.model, torch.cat([image[None], hidden]), predictor.info)
    scores = (logits / predictor.info.temperature).log_softmax(1)[:, target]
    drop, windows = torch.zeros(size, size), torch.zeros(size, size)
    for score, (top, left) in zip(scores[1:], corners, strict=True):
        drop[top : top + window, left : left + window] += scores[0] - score
        windows[top : top + window, left : left + window] += 1
    return drop / windows


def normalized_features(predictor: Predictor, images: Tensor | Iterable[Tensor]) -> Tensor:
    """Return the last features of a model for pictures, each vector scaled to length one.

    These are the inputs of its last layer, without those from earlier stages (`models.levels`),
    which say more about colours and textures than about objects.

    Args:
        predictor: the model.
        images: as in `predict_logits`, N at least 1.

    Returns:
        (N, D) float32.
    """
    features = predict_features(predictor.model, images, predictor.info)
    return F.normalize(features[:, :LAST_FEATURES] if predictor.info.levels else features)


def find_similar(
    predictor: Predictor, image: Tensor, training: Split, count: int
) -> SimilarPictures:
    """Return the training pictures whose features are most similar to a picture's.

    Args:
        predictor: the model that computes the features.
        image: (3, S, S) uint8.
        training: the training pictures.
        count: number of pictures to return at most.

    Examples:
        >>> predictor, sample = Predictor.load("strong"), load_sample()
        >>> similar = find_similar(predictor, sample.test.images[0], sample.train, count=3)
        >>> len(similar.index)
        3
    """
    features = normalized_features(predictor, training.parts())
    return find_similar_by_features(features, predictor, image, count)


def find_similar_by_features(
    features: Tensor, predictor: Predictor, image: Tensor, count: int
) -> SimilarPictures:
    """Return what `find_similar` does, given the `normalized_features` of the training pictures."""
    similarity = (features @ normalized_features(predictor, image[None]).T)[:, 0]
    values, index = similarity.topk(min(count, len(features)))
    return SimilarPictures(index, values)


def caption_similar(
    similar: SimilarPictures, training: Split, classes: Sequence[str]
) -> list[tuple[Tensor, str]]:
    """Return similar pictures, (3, S, S) uint8, each with its class and similarity as a caption."""
    split = training[similar.index]
    return [
        (image, f"{classes[label]}, {similarity:.2f}")
        for image, label, similarity in zip(
            split.images, split.labels, similar.similarity.tolist(), strict=True
        )
    ]
