"""Calibration error of probabilities, and temperature scaling."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Number of bins of equal width, as in Guo et al."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
"""Bounds of the temperature."""
PRIOR = 5.0
"""Weight of the prior. With a larger one, it takes more pictures to move the temperature from 1."""
FEW_PICTURES = 100
"""With fewer pictures than this, the prior keeps the temperature near 1."""


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in B bins of equal width from 0 to 1."""

    count: Tensor
    """(B,) int64, number of predictions in each bin."""
    confidence: Tensor
    """(B,) float64, mean probability of the predicted classes; 0 in an empty bin."""
    accuracy: Tensor
    """(B,) float64, share of correct predictions; 0 in an empty bin."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap of the bins, weighted by their counts."""
        gaps = (self.confidence - self.accuracy).abs()
        return ((gaps * self.count).sum() / self.count.sum()).item()


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Reliability:
    """Sort predictions into bins by confidence.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.

    Args:
        confidence: (N,) probability of the predicted class, N at least 1.
        correct: (N,) bool, whether the prediction is correct.
        bins: number of bins.
    """
    confidence, correct = confidence.double(), correct.double()
    index = (confidence * bins).long().clamp(max=bins - 1)
    count = index.bincount(minlength=bins)
    sums = torch.zeros(2, bins, dtype=torch.float64)
    sums.index_add_(1, index, torch.stack([confidence, correct]))
    means = sums / count.clamp(min=1)
    return Reliability(count, means[0], means[1])


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy.

    Args:
        logits: (N, C).
        labels: (N,) int64.
        bins: number of bins.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    return reliability(confidence, predicted == labels, bins).error


def fit_temperature(logits: Tensor, labels: Tensor, prior: float = PRIOR) -> float:
    """Return the temperature T that calibrates probabilities when logits are divided by it.

    It minimises the cross-entropy (Guo et al., 2017, section 4.2) plus a gamma prior on 1 / T whose
    mode is 1. Without the prior, a model that predicts all of a few pictures correctly would become
    certain of everything. With hundreds of pictures, the prior hardly matters. The temperature does
    not change the order of the logits, so the predicted class stays the same.

    The objective is convex in 1 / T, so its slope has a single root, which bisection finds.

    Args:
        logits: (N, C) logits of pictures that the model was not trained on.
        labels: (N,) int64.
        prior: weight of the prior term `prior * (1 / T + log T)`; 0 for no prior.

    Returns:
        A temperature from MIN_TEMPERATURE to MAX_TEMPERATURE.
    """
    z = logits.double()
    true_sum = z.gather(1, labels[:, None])[:, 0].sum()
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(60):
        middle = (low + high) / 2
        temperature = math.exp(middle)
        expected = ((z / temperature).softmax(1) * z).sum()
        if expected - true_sum + prior * (1 - temperature) > 0:  # overconfident
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
