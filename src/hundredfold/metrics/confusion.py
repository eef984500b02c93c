"""What the predictions of a test set tell: pure functions of labels and probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class ClassScore(NamedTuple):
    """How well one class is recognised; None where there is nothing to divide by."""

    support: int
    """Test pictures of the class."""
    precision: float | None
    """Share of the pictures predicted as this class that are of it."""
    recall: float | None
    """Share of the class's pictures that are predicted as it."""
    f1: float | None
    """Harmonic mean of both."""


class Confusion(NamedTuple):
    """Two classes that are taken for each other."""

    first: int
    second: int
    there: int
    """Pictures of the first predicted as the second."""
    back: int
    """Pictures of the second predicted as the first."""


class McNemar(NamedTuple):
    """Two classifiers on the same pictures."""

    only_first: int
    """Pictures that only the first got right."""
    only_second: int
    """Pictures that only the second got right."""
    p: float
    """Two-sided probability of a split at least as uneven, were both equally good."""


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Return (C, C) int64 counts: row the label, column the prediction; labels (N,), (N,)."""
    cells = labels * classes + predicted
    return cells.bincount(minlength=classes**2).view(classes, classes)


def class_scores(confusion: Tensor) -> list[ClassScore]:
    """Return each class's scores from a (C, C) confusion matrix."""
    right = confusion.diag().tolist()
    scores = []
    for hits, support, named in zip(
        right, confusion.sum(1).tolist(), confusion.sum(0).tolist(), strict=True
    ):
        either = support + named
        scores.append(
            ClassScore(
                support,
                hits / named if named else None,
                hits / support if support else None,
                2 * hits / either if either else None,
            )
        )
    return scores


def confused_pairs(confusion: Tensor, count: int) -> list[Confusion]:
    """Return the `count` pairs of classes confused most often, either way; none without mistakes.

    Args:
        confusion: (C, C) int64.
        count: how many at most.
    """
    both = (confusion + confusion.T).triu(1)
    values, order = both.flatten().sort(descending=True, stable=True)
    pairs = []
    for value, cell in zip(values[:count].tolist(), order[:count].tolist(), strict=True):
        first, second = divmod(cell, len(confusion))
        if value:
            there, back = confusion[first, second].item(), confusion[second, first].item()
            pairs.append(Confusion(first, second, int(there), int(back)))
    return pairs


def coverage(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return accuracy by coverage: of a model that answers only the pictures it is surest of.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", 2010.

    Args:
        confidence: (N,) of each prediction.
        correct: (N,) bool.

    Returns:
        (N,) float64, accuracy on the surest 1, 2, ..., N pictures.
    """
    order = confidence.argsort(descending=True, stable=True)
    return correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)


def inside_share(labels: Tensor, predicted: Tensor, parents: Sequence[int]) -> float | None:
    """Return the share of mistakes that stay inside the label's superclass; None without mistakes.

    Args:
        labels: (N,) int64.
        predicted: (N,) int64.
        parents: (C,) index of each class's superclass.
    """
    above = torch.as_tensor(parents)
    wrong = labels != predicted
    if not wrong.any():
        return None
    return (above[labels] == above[predicted])[wrong].double().mean().item()


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """Test whether one of two classifiers is better on the same pictures, exactly.

    McNemar, "Note on the sampling error of the difference between correlated proportions", 1947;
    the exact binomial form: pictures that both get right, or neither, say nothing.

    Args:
        first: (N,) bool, whether the first got each picture right.
        second: (N,) bool, the second.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    tail, term = 1, 1  # of 2 ** n equally likely splits, those with at most k on one side
    for i in range(1, k + 1):
        term = term * (n - i + 1) // i
        tail += term
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**n))
