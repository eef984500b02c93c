"""Compare schedules with torch's scheduler, and optimizers with torch's and with definitions."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hundredfold import Config
from hundredfold.models.timm import freeze_layers, layer_numbers
from hundredfold.training.optim import (
    MUON_MOMENTUM,
    NEWTON_SCHULZ,
    Muon,
    build_optimizer,
    layer_groups,
    look_ahead,
    one_cycle,
    one_cycle_beta1,
    orthogonalised,
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
def test_triangle_rises_to_the_peak_and_then_falls(steps: int, warmup: float) -> None:
    rates = [triangle(step, steps, warmup, end=0.07) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[-1] == pytest.approx(0.07)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top + 1 - warmup * steps) <= 1


def test_triangle_equals_values_computed_by_hand() -> None:
    rates = [triangle(step, 10, warmup=0.2, end=0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def test_set_schedule_sets_the_rate_and_returns_its_share_of_the_peak() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), Config(optimizer="sgd", lr=0.5))
    for step, share in ((0, 0.5), (1, 1.0)):
        found = set_schedule(optimizer, step, 4, schedule="triangle", warmup=0.5)
        assert found == pytest.approx(share)
        assert optimizer.param_groups[0]["lr"] == 0.5 * found


def test_frozen_parameters_are_not_optimised() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    groups = build_optimizer(model, Config()).param_groups
    chosen = {id(p) for group in groups for p in group["params"]}
    assert chosen == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}


def assert_same_steps(
    ours: nn.Linear,
    optimizer: torch.optim.Optimizer,
    plain: nn.Linear,
    reference: torch.optim.Optimizer,
) -> None:
    """Take five steps with both optimizers, and compare the weights of their models."""
    for x in torch.randn(5, 4, 3):
        for model, stepper in ((ours, optimizer), (plain, reference)):
            stepper.zero_grad()
            model(x).square().mean().backward()
            stepper.step()
    torch.testing.assert_close(ours.weight, plain.weight)
    torch.testing.assert_close(ours.bias, plain.bias)


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
    assert_same_steps(ours, optimizer, plain, reference)


def test_one_cycle_changes_adams_first_beta() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), Config(optimizer="adam", lr=0.01))
    set_schedule(optimizer, 0, 100, schedule="one_cycle", warmup=0.3)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.95), 0.999)
    set_schedule(optimizer, 29, 100, schedule="one_cycle", warmup=0.3)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.85), 0.999)


@pytest.mark.parametrize("shape", [(5, 5), (6, 40), (40, 6)])
def test_orthogonalised_changes_only_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    a, b, c = NEWTON_SCHULZ
    for _ in range(3):
        values = a * values + b * values**3 + c * values**5
    others = [matrix.new_ones(2, 2), matrix * 3 + 1]
    found = orthogonalised([others[0], matrix, others[1]])
    torch.testing.assert_close(found[1], u @ torch.diag(values) @ v)
    torch.testing.assert_close(found[2], orthogonalised(others[1:])[0])


def test_orthogonalised_brings_singular_values_near_one() -> None:
    matrix = torch.randn(32, 288, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised([matrix])[0])
    assert values.min() > 0.6
    assert values.max() < 1.3


def timm_model(frozen: float = 0.0) -> nn.Module:
    timm = pytest.importorskip("timm")
    model: nn.Module = timm.create_model("resnet10t", num_classes=3)
    freeze_layers(model, frozen)
    return model


LAYERS = [["conv1.", "bn1."], ["layer1."], ["layer2."], ["layer3."], ["layer4."], ["fc."]]
"""Beginnings of the names in each layer of resnet10t, from its input."""


def test_the_layers_of_a_model_are_numbered_from_its_input() -> None:
    numbers = layer_numbers(timm_model())
    by_name = [
        {number for name, number in numbers.items() if name.startswith(tuple(starts))}
        for starts in LAYERS
    ]
    assert all(len(found) == 1 for found in by_name)
    assert sorted(by_name, key=min) == by_name
    assert len(set.union(*by_name)) == len(LAYERS)


@pytest.mark.parametrize("frozen", [0.0, 0.3, 0.5, 0.99])
def test_the_rates_fall_from_the_head_to_the_first_layer(frozen: float) -> None:
    config = Config(
        model="timm:resnet10t",
        optimizer="adamw",
        lr=0.01,
        layer_decay=0.5,
        weight_decay=0.1,
        weights="hub",
        frozen=frozen,
    )
    model = timm_model(frozen)
    groups = layer_groups(model, config)
    names = {id(weight): name for name, weight in model.named_parameters()}
    grouped = [names[id(weight)] for group in groups for weight in group["params"]]
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert sorted(grouped) == sorted(trained)  # each in one group
    assert "fc.weight" in trained and ("conv1.0.weight" in trained) == (frozen == 0)
    rates = {names[id(w)]: group["lr"] for group in groups for w in group["params"]}
    by_layer = [
        {rate for name, rate in rates.items() if name.startswith(tuple(starts))}
        for starts in LAYERS
    ]
    left = [found.pop() for found in by_layer if found]
    assert left[-1] == 0.01
    ratios = [after / before for before, after in itertools.pairwise(left)]
    # timm counts the step before the head as a layer of its own, which has no weights here.
    assert all(math.log2(ratio) == pytest.approx(round(math.log2(ratio))) for ratio in ratios)
    assert all(1.9 < ratio < 4.1 for ratio in ratios)
    for group in groups:
        matrices = {weight.ndim > 1 for weight in group["params"]}
        assert len(matrices) == 1
        assert group["weight_decay"] == (0.1 if matrices.pop() else 0.0)


def test_a_schedule_keeps_the_ratios_of_the_layers() -> None:
    config = Config(model="timm:resnet10t", optimizer="adamw", lr=0.01, layer_decay=0.5)
    optimizer = build_optimizer(timm_model(), config)
    first = [group["lr"] for group in optimizer.param_groups]
    for step in range(5):
        share = set_schedule(optimizer, step, 5, schedule="one_cycle", warmup=0.4)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rate * share for rate in first])


def test_adamw_equals_torchs() -> None:
    config = Config(optimizer="adamw", lr=0.1, weight_decay=0.3)
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, config)
    groups: list[dict[str, Any]] = [
        {"params": [plain.weight], "weight_decay": 0.3},
        {"params": [plain.bias], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.1)
    assert_same_steps(ours, optimizer, plain, reference)


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("bias_lr", [1.0, 4.0])
def test_muon_is_sgd_for_all_weights_but_convolutions(bias_lr: float) -> None:
    ours, plain = small_net(), small_net()
    plain.load_state_dict(ours.state_dict())
    optimizer = Muon(
        dict(ours.named_parameters()),
        lr=0.1,
        muon_lr=0.3,
        bias_lr=bias_lr,
        momentum=0.9,
        weight_decay=0.01,
    )
    weights = next(plain.parameters())
    rest = [p for p in plain.parameters() if p is not weights]
    groups = [
        {
            "params": [p],
            "lr": 0.1 * (bias_lr if p.ndim == 1 else 1),
            "weight_decay": 0.01 / (bias_lr if p.ndim == 1 else 1),
        }
        for p in rest
    ]
    reference = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    buffer = torch.zeros_like(weights)
    for x in torch.randn(5, 4, 3, 3, 3):
        for model in (ours, plain):
            model.zero_grad()
            model(x).square().mean().backward()
        optimizer.step()
        reference.step()
        with torch.no_grad():  # Muon, written out step by step
            gradient = weights.grad if weights.grad is not None else torch.zeros(0)
            buffer = MUON_MOMENTUM * buffer + gradient
            update = orthogonalised([(gradient + MUON_MOMENTUM * buffer).reshape(4, 27)])[0]
            held = weights * 4**0.5 / weights.norm()
            weights.copy_(held - 0.3 * update.reshape(weights.shape))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


def test_the_schedule_scales_all_rates_of_muon() -> None:
    config = Config(optimizer="muon", lr=0.5, muon_lr=0.2, bias_lr=2)
    optimizer = build_optimizer(small_net(), config)
    assert set_schedule(optimizer, 0, 4, schedule="triangle", warmup=0.5) == pytest.approx(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.5, 0.25])
    plain = build_optimizer(nn.Linear(2, 2, bias=False), config)  # without convolutions
    assert len(plain.param_groups) == 1


def test_muons_state_is_restored_exactly() -> None:
    config = Config(optimizer="muon")
    models = [small_net(), small_net()]
    optimizers = [build_optimizer(model, config) for model in models]

    def train(index: int, x: torch.Tensor) -> None:
        optimizers[index].zero_grad()
        models[index](x).square().mean().backward()
        optimizers[index].step()

    train(0, torch.randn(4, 3, 3, 3))
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    x = torch.randn(4, 3, 3, 3)
    train(0, x)
    train(1, x)
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert first.equal(second)


def test_look_ahead_averages_all_but_the_counts_of_batches() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    first = {name: value.clone() for name, value in model.state_dict().items()}
    slow = {name: value.clone() for name, value in first.items() if value.is_floating_point()}
    model(torch.randn(4, 2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    moved = {name: value.clone() for name, value in model.state_dict().items()}
    look_ahead(model, slow, 0.75)
    for name, value in model.state_dict().items():
        counted = name.endswith("num_batches_tracked")
        want = moved[name] if counted else 0.75 * first[name] + 0.25 * moved[name]
        torch.testing.assert_close(value, want)
        assert counted or value.equal(slow[name])


def test_one_cycle_is_finite_in_the_shortest_runs() -> None:
    for steps in (1, 2, 3):
        assert all(math.isfinite(one_cycle(step, steps)) for step in range(steps))


@given(steps=st.floats(10, 300), progress=st.floats(0, 1), warmup=st.floats(0.15, 0.9))
def test_rates_between_whole_steps_stay_in_range(
    steps: float, progress: float, warmup: float
) -> None:
    assert 0 < triangle(progress * steps, steps, warmup) <= 1
    assert 1 / 250_000 <= one_cycle(progress * steps, steps, warmup) <= 1
