"""Multinomial logistic regression on features: the head of a model with frozen layers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
"""Strengths to choose from, strongest first."""
MAX_ITERATIONS = 200
GRADIENT = 1e-4
"""Largest entry of the gradient at which the optimisation ends."""


class Head(NamedTuple):
    """A linear layer."""

    weight: Tensor
    """(C, D)"""
    bias: Tensor
    """(C,)"""

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (N, C) for features (N, D)."""
        return F.linear(features, self.weight, self.bias)


def fit_heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    class_weights: Tensor | None = None,
) -> Iterator[Head]:
    """Fit a linear layer for each strength of an L2 penalty.

    Each minimises the mean cross-entropy plus `strength / (2 N)` times the sum of the squared
    weights, as scikit-learn's LogisticRegression with `C = 1 / strength` for three or more classes.
    (For two classes it has a single vector of weights, and equals this with `C = 2 / strength`.)
    The minimum is unique. L-BFGS finds it, and each strength starts from the solution of the one
    before.

    Args:
        features: (N, D) float32.
        labels: (N,) int64.
        classes: number of classes C; some may have no pictures.
        strengths: one or more.
        class_weights: (C,) weight of each class in the loss; None if all weigh the same.

    Yields:
        The layer of each strength.
    """
    mean = features.mean(0)
    solution = torch.zeros(features.shape[1] + 1, classes)
    for strength in strengths:
        penalty = strength / len(features)
        solution = _minimise(features, mean, labels, penalty, class_weights, solution)
        weight = solution[:-1].T.contiguous()
        yield Head(weight, solution[-1] - weight @ mean)


def _minimise(
    features: Tensor,
    mean: Tensor,
    labels: Tensor,
    penalty: float,
    class_weights: Tensor | None,
    start: Tensor,
) -> Tensor:
    """Return the (D + 1, C) minimum of the penalised loss, whose last row has no penalty.

    The last row is the bias for features less their mean, with which the minimum is found sooner.
    The mean is not subtracted from the features, because a second copy of them may be large.
    """
    solution = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solution],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight, bias = solution[:-1], solution[-1]
        logits = torch.addmm(bias - mean @ weight, features, weight)
        value = F.cross_entropy(logits, labels, class_weights)
        value = value + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return solution.detach()
