"""Schedules against torch's own scheduler, parameter groups, lookahead."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hundredfold import Config
from hundredfold.optim import (
    build_optimizer,
    lookahead_,
    lookahead_decay,
    one_cycle,
    one_cycle_beta1,
    set_schedule,
    triangle,
)


@pytest.mark.parametrize("steps", [10, 97, 6256])
@pytest.mark.parametrize("warmup", [0.3, 0.25])
def test_one_cycle_equals_torchs_scheduler(steps: int, warmup: float) -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=steps, pct_start=warmup
    )
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert 0.01 * one_cycle(step, steps, warmup) == pytest.approx(group["lr"], rel=1e-9)
        beta1 = one_cycle_beta1(step, steps, warmup)
        assert beta1 == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


@given(steps=st.integers(1, 300), warmup=st.floats(0.05, 0.95))
def test_triangle_rises_to_the_peak_and_falls_to_its_end(steps: int, warmup: float) -> None:
    rates = [triangle(step, steps, warmup, end=0.07) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[-1] == pytest.approx(0.07)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top + 1 - warmup * steps) <= 1


def test_triangle_by_hand() -> None:
    rates = [triangle(step, 10, warmup=0.2, end=0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def test_set_schedule_sets_and_returns_the_rate() -> None:
    config = Config(lr=0.5, schedule="triangle", warmup=0.5)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    rates = [set_schedule(optimizer, step, 4, config) for step in range(2)]
    assert rates == pytest.approx([0.25, 0.5])
    assert optimizer.param_groups[0]["lr"] == rates[-1]


def test_frozen_parameters_are_not_optimised() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    chosen = {id(p) for p in build_optimizer(model, Config()).param_groups[0]["params"]}
    assert chosen == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_equals_torchs_plain_optimizer(name: str) -> None:
    config = Config(optimizer=name, lr=0.1, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, config)
    reference = (
        torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=True)
        if name == "sgd"
        else torch.optim.Adam(plain.parameters(), 0.1, weight_decay=0.01)
    )
    for x in torch.randn(5, 4, 3):
        for model, stepper in ((ours, optimizer), (plain, reference)):
            stepper.zero_grad()
            model(x).square().mean().backward()
            stepper.step()
    torch.testing.assert_close(ours.weight, plain.weight)
    torch.testing.assert_close(ours.bias, plain.bias)


def test_adam_follows_the_beta_cycle() -> None:
    config = Config(optimizer="adam", schedule="one_cycle", warmup=0.3, lr=0.01)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    set_schedule(optimizer, 0, 100, config)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.95), 0.999)
    set_schedule(optimizer, 29, 100, config)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.85), 0.999)


def test_lookahead_equals_a_plain_loop() -> None:
    model = nn.BatchNorm1d(2)
    slow = {name: value.clone() for name, value in model.state_dict().items()}
    want = dict(model.named_parameters())["weight"].detach().clone()
    for step in range(3):
        with torch.no_grad():
            model.weight.add_(step + 1.0)
            model.state_dict()["num_batches_tracked"].add_(1)
        want = 0.75 * want + 0.25 * (want + step + 1.0)
        lookahead_(slow, model, 0.75)
        torch.testing.assert_close(model.weight.detach(), want)
    assert model.state_dict()["num_batches_tracked"] == 3


def test_lookahead_waits_four_steps_of_five_and_ends_on_the_last() -> None:
    config = Config(lookahead=0.9)
    decays = [lookahead_decay(step, 12, config) for step in range(12)]
    assert [step for step, decay in enumerate(decays) if decay is not None] == [0, 5, 10, 11]
    assert decays[11] == pytest.approx(0.9**5)
    assert decays[5] == pytest.approx(0.9**5 * 0.5**3)
    assert lookahead_decay(0, 12, Config(lookahead=0)) is None


def test_one_cycle_survives_the_shortest_runs() -> None:
    for steps in (1, 2, 3):
        assert all(math.isfinite(one_cycle(step, steps)) for step in range(steps))
