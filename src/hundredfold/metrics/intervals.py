"""Confidence intervals of accuracies."""

import math
from collections.abc import Mapping
from statistics import NormalDist

CONFIDENCE = 0.95
"""Confidence of every interval that people see."""


def wilson_interval(
    share: float, count: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return Wilson's score interval of a share, such as an accuracy.

    It contains the share in the population with about this confidence, also for few pictures and
    for shares of 0 and 1. E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
    Inference", 1927; Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion",
    2001, section 3.

    Args:
        share: the share of hits, 0..1.
        count: number of independent trials: the number of test pictures, for an accuracy.
        confidence: probability that such an interval contains the share in the population,
            between 0 and 1.

    Returns:
        The lower and the upper limit, 0..1.

    Raises:
        ValueError: the count is not positive, the share is not in 0..1, or the confidence is not
            between 0 and 1.

    Examples:
        >>> low, high = wilson_interval(0.9, 40)
        >>> f"{low:.3f} to {high:.3f}"
        '0.769 to 0.960'
    """
    if count < 1:
        raise ValueError(f"There is no interval for {count} trials: at least 1 is needed.")
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is not a share: it must be 0 to 1.")
    if not 0 < confidence < 1:
        raise ValueError(f"{confidence} is not a confidence: it must be between 0 and 1.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return _lower(share, count, z), 1 - _lower(1 - share, count, z)


def _lower(share: float, count: int, z: float) -> float:
    """Return the lower limit, in a form that has no cancellation and is exactly 0 for a share of 0.

    It is the smaller root p of (share - p) ** 2 = z ** 2 * p * (1 - p) / count.
    """
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return share * share / (middle + spread)


def accuracy_intervals(metrics: Mapping[str, float], count: int) -> dict[str, list[float]]:
    """Return the interval of every accuracy.

    Args:
        metrics: as `measure` returns them.
        count: number of pictures on which they were measured.

    Returns:
        The lower and the upper limit, 0..1, by the key of the accuracy.
    """
    return {
        key: list(wilson_interval(share, count))
        for key, share in metrics.items()
        if is_accuracy(key)
    }


def is_accuracy(key: str) -> bool:
    """Return whether a metric is a share of pictures, such as `fine_top1`."""
    return key.endswith(("_top1", "_top5"))
