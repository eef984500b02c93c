"""Statistics of predictions as pure functions of labels, predictions and confidences."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class ClassScore(NamedTuple):
    """Scores of one class; None where the divisor is 0."""

    support: int
    """Number of test pictures of the class."""
    precision: float | None
    """Share of the pictures predicted as this class that belong to it."""
    recall: float | None
    """Share of the pictures of this class that are predicted as it."""
    f1: float | None
    """Harmonic mean of precision and recall."""


class ConfusedPair(NamedTuple):
    """Two classes that are mistaken for each other."""

    first: int
    """Index of the first class."""
    second: int
    """Index of the second class."""
    first_as_second: int
    """Number of pictures of the first class that are predicted as the second."""
    second_as_first: int
    """Number of pictures of the second class that are predicted as the first."""


class McNemar(NamedTuple):
    """Result of McNemar's test of two classifiers on the same pictures."""

    only_first: int
    """Number of pictures that only the first classifier predicts correctly."""
    only_second: int
    """Number of pictures that only the second classifier predicts correctly."""
    p: float
    """Two-sided p-value: probability of a split at least as uneven if both are equally good."""


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Return (C, C) int64 counts, a row for each label, from (N,) labels and (N,) predictions."""
    cells = labels * classes + predicted
    return cells.bincount(minlength=classes**2).view(classes, classes)


def class_scores(confusion: Tensor) -> list[ClassScore]:
    """Return the scores of each class from a (C, C) confusion matrix."""
    return scores_from_counts(
        confusion.diag().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    )


def scores_from_counts(
    correct: Sequence[int], supports: Sequence[int], predictions: Sequence[int]
) -> list[ClassScore]:
    """Return the scores of each class.

    Args:
        correct: number of pictures of the class that are predicted correctly.
        supports: number of pictures of the class.
        predictions: number of pictures that are predicted to be of the class.
    """
    scores = []
    for hits, support, predicted in zip(correct, supports, predictions, strict=True):
        total = support + predicted
        scores.append(
            ClassScore(
                support,
                precision=hits / predicted if predicted else None,
                recall=hits / support if support else None,
                f1=2 * hits / total if total else None,
            )
        )
    return scores


def confused_pairs(confusion: Tensor, count: int) -> list[ConfusedPair]:
    """Return the pairs of classes with the most mistakes, by the sum of both directions.

    Args:
        confusion: (C, C) int64 confusion matrix.
        count: number of pairs at most; pairs without mistakes are left out.
    """
    both = (confusion + confusion.T).triu(1)
    values, order = both.flatten().sort(descending=True, stable=True)
    pairs = []
    for value, cell in zip(values[:count].tolist(), order[:count].tolist(), strict=True):
        first, second = divmod(cell, len(confusion))
        if value:
            counts = int(confusion[first, second]), int(confusion[second, first])
            pairs.append(ConfusedPair(first, second, *counts))
    return pairs


def accuracy_by_coverage(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return the accuracy on the most confident predictions, for every number of them.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", 2010.

    Args:
        confidence: (N,) probability of each predicted class.
        correct: (N,) bool, whether each prediction is correct.

    Returns:
        (N,) float64, accuracy on the 1, 2, ..., N pictures with the highest confidence.
    """
    order = confidence.argsort(descending=True, stable=True)
    return correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)


def share_within_superclass(
    labels: Tensor, predicted: Tensor, parents: Sequence[int]
) -> float | None:
    """Return the share of mistakes within the label's superclass; None without mistakes.

    Args:
        labels: (N,) int64.
        predicted: (N,) int64.
        parents: (C,) index of each class's superclass.
    """
    superclass = torch.as_tensor(parents)
    wrong = labels != predicted
    if not wrong.any():
        return None
    return (superclass[labels] == superclass[predicted])[wrong].double().mean().item()


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """Test exactly whether one of two classifiers is better on the same pictures.

    McNemar, "Note on the sampling error of the difference between correlated proportions", 1947, in
    the exact binomial form. Pictures that both or neither predict correctly do not count.

    Args:
        first: (N,) bool, whether the first classifier predicts each picture correctly.
        second: (N,) bool, the same for the second classifier.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    tail, term = 1, 1  # splits with at most k on one side, of 2 ** n equally likely ones
    for i in range(1, k + 1):
        term = term * (n - i + 1) // i
        tail += term
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**n))
