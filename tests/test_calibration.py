"""Calibration against scipy and loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from hundredfold.metrics.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_temperature,
    reliability,
)


def random_predictions(seed: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return logits (400, 7) that are right about half the time, times `scale`; labels (400,)."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (400,), generator=rng)
    return scale * (torch.randn(400, 7, generator=rng) + F.one_hot(labels, 7)), labels


@pytest.mark.parametrize("scale", [0.2, 1.0, 9.0])
@pytest.mark.parametrize(("pictures", "prior"), [(400, 0.0), (400, 5.0), (12, 5.0), (2, 5.0)])
def test_temperature_equals_the_minimum_that_scipy_finds(
    scale: float, pictures: int, prior: float
) -> None:
    logits, labels = (part[:pictures] for part in random_predictions(0, scale))

    def cost(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        loss = F.cross_entropy(logits.double() / temperature, labels, reduction="sum").item()
        return loss + prior * (1 / temperature + log_temperature)

    want = minimize_scalar(cost, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(logits, labels, prior) == pytest.approx(math.exp(want), rel=1e-5)


@given(st.integers(0, 50), st.floats(0.1, 10))
def test_scaled_logits_scale_the_temperature_without_a_prior(seed: int, scale: float) -> None:
    logits, labels = random_predictions(seed, 1.0)
    once, scaled = (fit_temperature(z, labels, 0.0) for z in (logits, scale * logits.double()))
    assert scaled == pytest.approx(scale * once, rel=1e-6)


@given(st.integers(1, 12), st.integers(0, 50))
def test_few_correct_pictures_do_not_make_the_model_certain(pictures: int, seed: int) -> None:
    """The model is right two times in three, always with a probability of a half."""
    labels = torch.randint(0, 7, (400,), generator=torch.Generator().manual_seed(seed))
    logits = math.log(6.0) * F.one_hot(labels, 7).double()  # 6 / (6 + 6)
    temperature = fit_temperature(logits[:pictures], labels[:pictures])
    assert 0.4 < temperature < 1
    shifted = torch.where(torch.arange(400) % 3 == 0, (labels + 1) % 7, labels)
    loss = F.cross_entropy(logits / temperature, shifted)
    assert loss < F.cross_entropy(logits, shifted) + 0.5  # nats


def test_prior_hardly_matters_with_hundreds_of_pictures() -> None:
    logits, labels = random_predictions(0, 3.0)
    assert fit_temperature(logits, labels) == pytest.approx(
        fit_temperature(logits, labels, 0.0), rel=0.02
    )


def test_temperature_stays_in_bounds_if_all_predictions_are_right_or_wrong() -> None:
    labels = torch.arange(4)
    logits = 5 * F.one_hot(labels).float()
    assert fit_temperature(logits, labels, 0.0) == pytest.approx(MIN_TEMPERATURE)
    assert fit_temperature(logits, (labels + 1) % 4, 0.0) == pytest.approx(MAX_TEMPERATURE)


def test_reliability_equals_a_loop() -> None:
    logits, labels = random_predictions(1, 1.0)
    confidence, predicted = logits.softmax(1).max(1)
    found = reliability(confidence, predicted == labels, bins=10)
    for i in range(10):
        inside = [
            (c, p == y)
            for c, p, y in zip(
                confidence.tolist(), predicted.tolist(), labels.tolist(), strict=True
            )
            if i / 10 <= c < (i + 1) / 10
        ]
        assert found.count[i] == len(inside)
        for value, want in ((found.confidence[i], 0), (found.accuracy[i], 1)):
            mean = sum(pair[want] for pair in inside) / len(inside) if inside else 0.0
            assert value.item() == pytest.approx(mean)
    assert found.count.sum() == 400
