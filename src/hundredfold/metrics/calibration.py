"""Whether probabilities mean what they say, and the one number that makes them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Bins of equal width, as in Guo et al."""
SHARPEST, FLATTEST = 0.01, 100.0
"""Bounds of the temperature."""
PRIOR = 5.0
"""Weight of the prior: the larger, the more pictures it takes to move the temperature from 1."""
ENOUGH = 100
"""Pictures from which on the prior hardly matters."""


@dataclass(frozen=True)
class Reliability:
    """Predictions by their confidence, in bins of equal width from 0 to 1."""

    count: Tensor
    """(B,) int64, predictions in each bin."""
    confidence: Tensor
    """(B,) float64, mean probability of what was predicted; 0 in an empty bin."""
    accuracy: Tensor
    """(B,) float64, share that was right; 0 in an empty bin."""

    @property
    def error(self) -> float:
        """The expected calibration error: the bins' gaps, weighted by their predictions."""
        gaps = (self.confidence - self.accuracy).abs()
        return ((gaps * self.count).sum() / self.count.sum()).item()


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Reliability:
    """Sort predictions into bins by confidence.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.

    Args:
        confidence: (N,) probability of what was predicted, N at least 1.
        correct: (N,) bool.
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
    """Return the ECE: the gap between confidence and accuracy, averaged over confidence bins.

    Args:
        logits: (N, C).
        labels: (N,) int64.
        bins: number of bins.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    return reliability(confidence, predicted == labels, bins).error


def fit_temperature(logits: Tensor, labels: Tensor, prior: float = PRIOR) -> float:
    """Return the temperature T by which to divide logits so that probabilities are calibrated.

    It is the most probable one: that of the least cross-entropy (Guo et al., 2017, section 4.2),
    drawn towards 1 by a gamma prior on 1 / T whose mode is 1. The cross-entropy alone would make a
    model that gets a handful of pictures right certain of everything. Of hundreds of pictures the
    prior hardly matters. No logit changes its rank, so what is predicted stays the same.

    The sum of both is convex in 1 / T, so its slope has one root, which bisection finds.

    Args:
        logits: (N, C), of pictures that the model was not trained on.
        labels: (N,) int64.
        prior: weight of the prior, which is `prior * (1 / T + log T)`; 0 for none.

    Returns:
        SHARPEST..FLATTEST.
    """
    z = logits.double()
    right = z.gather(1, labels[:, None])[:, 0].sum()
    low, high = math.log(SHARPEST), math.log(FLATTEST)
    for _ in range(60):
        middle = (low + high) / 2
        temperature = math.exp(middle)
        expected = ((z / temperature).softmax(1) * z).sum()
        if expected - right + prior * (1 - temperature) > 0:  # too sure of itself
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
