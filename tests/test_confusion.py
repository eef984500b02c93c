"""Confusion statistics against scikit-learn, scipy and loops."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from hundredfold.metrics.confusion import (
    accuracy_by_coverage,
    class_scores,
    confused_pairs,
    confusion_matrix,
    mcnemar,
    share_within_superclass,
)

RNG = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 5, (300,), generator=RNG)  # class 5 is absent, class 6 never predicted
PREDICTED = torch.where(
    torch.rand(300, generator=RNG) < 0.6, LABELS, torch.randint(0, 6, (300,), generator=RNG)
)


def test_confusion_matrix_equals_scikit_learn() -> None:
    want = sklearn_confusion(LABELS, PREDICTED, labels=range(7))
    assert confusion_matrix(LABELS, PREDICTED, 7).tolist() == want.tolist()


def test_class_scores_equal_scikit_learn_and_are_none_if_undefined() -> None:
    scores = class_scores(confusion_matrix(LABELS, PREDICTED, 7))
    precision, recall, f1, support = precision_recall_fscore_support(
        LABELS, PREDICTED, labels=range(7), zero_division=0
    )
    for i, score in enumerate(scores):
        assert score.support == support[i]
        assert (score.precision or 0) == pytest.approx(precision[i])
        assert (score.recall or 0) == pytest.approx(recall[i])
        assert (score.f1 or 0) == pytest.approx(f1[i])
    assert scores[5].recall is None
    assert scores[5].precision == 0
    assert scores[6] == (0, None, None, None)


def test_confused_pairs_count_both_ways() -> None:
    confusion = torch.tensor([[9, 2, 1], [3, 8, 0], [4, 0, 7]])
    pairs = confused_pairs(confusion, 5)
    assert [tuple(p) for p in pairs] == [
        (0, 1, 2, 3),
        (0, 2, 1, 4),
    ]
    assert confused_pairs(torch.eye(3, dtype=torch.int64), 5) == []


def test_accuracy_by_coverage_equals_a_loop() -> None:
    confidence = torch.tensor([0.2, 0.9, 0.5, 0.7])
    found = accuracy_by_coverage(confidence, torch.tensor([True, True, False, False]))
    assert found.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])


def test_share_within_superclass_counts_only_mistakes() -> None:
    parents = (0, 0, 0, 1, 1)
    labels, predicted = torch.tensor([0, 0, 3, 4, 2]), torch.tensor([0, 1, 4, 0, 3])
    assert share_within_superclass(labels, predicted, parents) == 2 / 4
    assert share_within_superclass(labels, labels, parents) is None


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_equals_scipy_binomial_test(only_first: int, only_second: int) -> None:
    first = torch.tensor([True] * only_first + [False] * only_second + [True, False])
    second = torch.tensor([False] * only_first + [True] * only_second + [True, False])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    if only_first + only_second:
        n, k = only_first + only_second, min(only_first, only_second)
        want = binomtest(only_first, n).pvalue
        if not want:  # scipy underflows before we do
            want = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        assert found.p == pytest.approx(want, rel=1e-9, abs=1e-290)
    else:
        assert found.p == 1


def test_mcnemar_is_symmetric() -> None:
    for first, second in itertools.permutations([LABELS == 0, PREDICTED == 0]):
        assert mcnemar(first, second).p == mcnemar(second, first).p
