"""Convolutions in bfloat16: exact where bfloat16 is, torch's own up to rounding everywhere else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hundredfold import Config, Dataset, evaluate, fast, finetune, train
from hundredfold.models.unfolded import MOST_PIXELS, UnfoldedConv3x3
from hundredfold.models.winograd import Conv3x3
from hundredfold.support.device import has_matrix_units
from hundredfold.training import setup
from hundredfold.training.resume import reproduce

sides, channels = st.integers(1, 4), st.integers(1, 7)


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, K, H, W) of (B, C, H, W)."""
    y: Tensor = UnfoldedConv3x3.apply(x.permute(0, 2, 3, 1), weight)
    return y.permute(0, 3, 1, 2)


def small_integers(seed: int, *shape: int) -> Tensor:
    """Return float64 values of -2 to 2 that require a gradient."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=rng).double().requires_grad_()


@given(height=sides, width=sides, inputs=channels, filters=channels, seed=st.integers(0, 2**32 - 1))
def test_whole_numbers_are_convolved_exactly(
    height: int, width: int, inputs: int, filters: int, seed: int
) -> None:
    """All sums stay below 256, up to which bfloat16 has all whole numbers."""
    x, weight = (
        small_integers(seed, 3, inputs, height, width),
        small_integers(1, filters, inputs, 3, 3),
    )
    y = F.conv2d(x, weight, padding=1)
    of_y = small_integers(2, *y.shape).detach()
    wanted = torch.autograd.grad(y, (x, weight), of_y)
    ours = convolved(x, weight)
    assert ours.dtype == torch.bfloat16
    assert ours.double().equal(y)
    for got, want in zip(
        torch.autograd.grad(ours, (x, weight), of_y.bfloat16()), wanted, strict=True
    ):
        assert got.dtype == torch.float64
        assert got.equal(want)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pool", [False, True])
def test_a_layer_equals_torchs_up_to_rounding_on_small_maps_and_exactly_on_others(
    bias: bool, pool: bool
) -> None:
    torch.manual_seed(0)
    layer, plain = Conv3x3(16, 24, bias=bias), nn.Conv2d(16, 24, 3, padding=1, bias=bias)
    plain.load_state_dict(layer.state_dict())

    def torchs(x: Tensor) -> Tensor:
        return F.max_pool2d(plain(x), 2) if pool else plain(x)

    small, large = torch.randn(4, 16, 7, 7), torch.randn(4, 16, 8, 8)
    assert small[0, 0].numel() <= MOST_PIXELS < large[0, 0].numel()
    with torch.autocast("cpu", torch.bfloat16):
        ours = layer(small, pool=pool)
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours, torchs(small), rtol=0.02, atol=0.02)
        assert layer(large, pool=pool).equal(torchs(large))
        assert layer.eval()(small, pool=pool).equal(torchs(small))
    layer.train()
    with torch.autocast("cpu", torch.float16):
        assert layer(small, pool=pool).equal(torchs(small))


def test_gradients_reach_only_what_is_trained() -> None:
    for trained in ("input", "weights"):
        x, weight = small_integers(0, 2, 3, 4, 4), small_integers(1, 5, 3, 3, 3)
        (weight if trained == "input" else x).requires_grad_(False)
        convolved(x, weight).sum().backward()
        assert (x.grad is not None) == (trained == "input")
        assert (weight.grad is not None) == (trained == "weights")


@pytest.mark.parametrize("units", [False, True])
def test_a_run_keeps_the_precision_that_its_first_machine_chose(
    units: bool, tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "has_matrix_units", lambda: units)
    run = train(tiny_config, tiny, quiet=True)
    assert run.config().precision == ("bfloat16" if units else "float32")
    assert evaluate(run, tiny)["test"] == run.metrics()["test"]
    monkeypatch.setattr(setup, "has_matrix_units", lambda: not units)
    assert all(part.difference == "" for part in reproduce(run, tiny))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_used(
    precision: Any, tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, precision=precision)
    assert setup.as_recorded(config, tiny).precision == precision
    assert setup.make_setup(config, tiny, torch.device("cpu")).config.precision == precision


def test_pretrained_networks_are_trained_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "has_matrix_units", lambda: True)
    assert setup.with_precision(finetune(), torch.device("cpu")).precision == "float32"
    assert setup.with_precision(fast(), torch.device("mps")).precision == "float32"


def test_matrix_units_are_those_that_the_system_names() -> None:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        pytest.skip("this system does not name the processor's abilities")
    assert has_matrix_units() == (" amx_bf16" in flags)
