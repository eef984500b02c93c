"""The fitted head equals scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hundredfold.augment import balanced_weights
from hundredfold.models.logistic import STRENGTHS, Head, fit_heads


def blobs(counts: tuple[int, ...], dimensions: int = 6) -> tuple[Tensor, Tensor]:
    """Return overlapping normal clouds of features, one for each class, away from the origin."""
    rng = torch.Generator().manual_seed(3)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    centres = torch.randn(len(counts), dimensions, generator=rng)
    noise = torch.randn(len(labels), dimensions, generator=rng)
    order = torch.randperm(len(labels), generator=rng)
    return (centres[labels] + noise + 2)[order], labels[order]


def reference(
    features: Tensor, labels: Tensor, strength: float, class_weights: Tensor | None = None
) -> LogisticRegression:
    weights = None
    if class_weights is not None:  # torch divides the loss by the mean weight of the pictures
        weights = (class_weights / class_weights[labels].mean())[labels].double().numpy()
    model = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=10_000)
    return model.fit(features.double().numpy(), labels.numpy(), weights)


def assert_equal(head: Head, want: LogisticRegression, features: Tensor) -> None:
    """Compare weights and probabilities; a constant added to all biases changes neither."""
    found = head(features).softmax(1)[:, want.classes_].double().numpy()
    np.testing.assert_allclose(found, want.predict_proba(features.double().numpy()), atol=2e-3)
    np.testing.assert_allclose(head.weight[want.classes_], want.coef_, atol=2e-2)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_head_equals_scikit_learns(strength: float) -> None:
    features, labels = blobs((40, 25, 60))
    (head,) = fit_heads(features, labels, 3, (strength,))
    assert_equal(head, reference(features, labels, strength), features)


def test_each_strength_of_several_is_as_if_fitted_alone() -> None:
    features, labels = blobs((40, 25, 60))
    heads = list(fit_heads(features, labels, 3))
    assert len(heads) == len(STRENGTHS)
    for strength, head in zip(STRENGTHS, heads, strict=True):
        assert_equal(head, reference(features, labels, strength), features)


def test_class_weights_equal_scikit_learns() -> None:
    features, labels = blobs((90, 9, 30))
    for weights in (balanced_weights(labels, 3), torch.tensor([1.0, 5.0, 0.5])):
        (head,) = fit_heads(features, labels, 3, (1.0,), weights)
        assert_equal(head, reference(features, labels, 1.0, weights), features)


def test_a_class_without_pictures_is_never_predicted() -> None:
    features, labels = blobs((30, 30, 30))
    labels = torch.tensor([0, 2, 4])[labels]
    for weights in (None, balanced_weights(labels, 6)):
        (head,) = fit_heads(features, labels, 6, (1.0,), weights)
        chances = head(features).softmax(1)
        assert chances[:, [1, 3, 5]].max() < 0.02
        others = chances[:, [0, 2, 4]]
        want = reference(features, labels, 1.0).predict_proba(features.double().numpy())
        others = others / others.sum(1, keepdim=True)
        np.testing.assert_allclose(others.double().numpy(), want, atol=0.02)


def test_a_weaker_penalty_has_larger_weights_and_a_smaller_loss() -> None:
    features, labels = blobs((40, 25, 60))
    heads = list(fit_heads(features, labels, 3, (100.0, 10.0, 1.0, 0.1, 0.01)))
    norms = [head.weight.norm().item() for head in heads]
    losses = [torch.nn.functional.cross_entropy(h(features), labels).item() for h in heads]
    assert norms == sorted(norms) and norms[-1] > 2 * norms[0]
    assert losses == sorted(losses, reverse=True)


def test_a_very_strong_penalty_leaves_the_shares_of_the_classes() -> None:
    features, labels = blobs((40, 20, 60))
    (head,) = fit_heads(features, labels, 3, (1e6,))
    shares = torch.tensor([1 / 3, 1 / 6, 1 / 2]).expand(len(labels), 3)
    torch.testing.assert_close(head(features).softmax(1), shares, atol=2e-3, rtol=0)


def test_more_features_than_pictures_have_a_unique_head() -> None:
    features, labels = blobs((6, 6, 5), dimensions=200)
    (head,) = fit_heads(features, labels, 3, (3.0,))
    assert_equal(head, reference(features, labels, 3.0), features)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    (again,) = fit_heads(features[order], labels[order], 3, (3.0,))
    torch.testing.assert_close(again.weight, head.weight, atol=1e-4, rtol=0)


def test_two_classes_share_the_penalty_of_scikit_learns_single_vector() -> None:
    features, labels = blobs((40, 25))
    (head,) = fit_heads(features, labels, 2, (3.0,))
    want = reference(features, labels, 3.0 / 2)
    found = head(features).softmax(1).double().numpy()
    np.testing.assert_allclose(found, want.predict_proba(features.double().numpy()), atol=2e-3)
    np.testing.assert_allclose(head.weight[1] - head.weight[0], want.coef_[0], atol=2e-2)
