"""Why a picture is taken for what it is: what in it matters, and what it is like."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.data.dataset import Split
from hundredfold.inference.logits import predict_features, predict_logits
from hundredfold.inference.predict import Predictor


@dataclass(frozen=True)
class Nearest:
    """Training pictures that a network finds most like a picture, the likest first."""

    index: Tensor
    """(K,) int64, into the training split."""
    similarity: Tensor
    """(K,) cosine of the angle between the features, -1..1."""


def occlusion_map(predictor: Predictor, image: Tensor, target: int) -> Tensor:
    """Return how much each pixel speaks for a class: what its log-probability loses without it.

    A window of a quarter of the side slides over the picture by a sixteenth of it, each time hiding
    what it covers behind the training pictures' mean colour; each pixel has the mean of what was
    lost by the windows over it. Zeiler and Fergus, "Visualizing and Understanding Convolutional
    Networks", 2014, section 4.2.

    Args:
        predictor: what to explain; left as it is.
        image: (3, S, S) uint8, as `pictures.load_picture` returns it.
        target: index of the class.

    Returns:
        (S, S) float32 in nats: above 0 where the picture speaks for the class, below 0 against it.
    """
    size = image.shape[-1]
    window, stride = max(size // 4, 1), max(size // 16, 1)
    starts = sorted({*range(0, size - window, stride), size - window})
    grey = (255 * torch.tensor(predictor.info.mean)).round().to(torch.uint8)
    boxes = [(top, left) for top in starts for left in starts]
    hidden = image.repeat(len(boxes), 1, 1, 1)
    for picture, (top, left) in zip(hidden, boxes, strict=True):
        picture[:, top : top + window, left : left + window] = grey[:, None, None]
    logits = predict_logits(predictor.model, torch.cat([image[None], hidden]), predictor.info)
    scores = (logits / predictor.info.temperature).log_softmax(1)[:, target]
    lost, covered = torch.zeros(size, size), torch.zeros(size, size)
    for score, (top, left) in zip(scores[1:], boxes, strict=True):
        lost[top : top + window, left : left + window] += scores[0] - score
        covered[top : top + window, left : left + window] += 1
    return lost / covered


def features_of(predictor: Predictor, images: Tensor | Iterable[Tensor]) -> Tensor:
    """Return what a model's last layer is given for pictures, each scaled to length one.

    Args:
        predictor: the model.
        images: as in `inference.predict_logits`, N at least 1.

    Returns:
        (N, D) float32.
    """
    return F.normalize(predict_features(predictor.model, images, predictor.info))


def nearest(predictor: Predictor, image: Tensor, training: Split, count: int) -> Nearest:
    """Return the training pictures whose features lie nearest to a picture's.

    Args:
        predictor: whose features.
        image: (3, S, S) uint8.
        training: where to look.
        count: how many to return at most.
    """
    return nearest_of(features_of(predictor, training.parts()), predictor, image, count)


def captioned(found: Nearest, training: Split, classes: Sequence[str]) -> list[tuple[Tensor, str]]:
    """Return the pictures found, (3, S, S) uint8, each with its class and similarity in words."""
    like = training[found.index]
    return [
        (image, f"{classes[label]}, {similarity:.2f}")
        for image, label, similarity in zip(
            like.images, like.labels, found.similarity.tolist(), strict=True
        )
    ]


def nearest_of(features: Tensor, predictor: Predictor, image: Tensor, count: int) -> Nearest:
    """Return what `nearest` does, of training pictures whose `features_of` are at hand."""
    similarity = (features @ features_of(predictor, image[None]).T)[:, 0]
    values, index = similarity.topk(min(count, len(features)))
    return Nearest(index, values)
