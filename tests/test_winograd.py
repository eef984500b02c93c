"""Compare Winograd convolutions with torch's own and with explicit sums: in torch and compiled."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hundredfold.models.winograd import FEW, TILES, Conv3x3, best_tile
from hundredfold.models.winograd_compiled import CompiledWinograd
from hundredfold.models.winograd_torch import (
    TorchWinograd,
    add_border,
    join_blocks,
    remove_border,
    split_blocks,
    transforms,
)
from hundredfold.support import native

tiles = st.sampled_from(TILES)
sides = st.integers(1, 13)


def drawn(*shape: int) -> torch.Tensor:
    """Return normally distributed float64 values that require a gradient."""
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return values.requires_grad_()


def convolved(
    x: torch.Tensor, weight: torch.Tensor, m: int, *, compiled: bool = False
) -> torch.Tensor:
    """Return (B, K, H, W) of (B, C, H, W)."""
    function = CompiledWinograd if compiled else TorchWinograd
    y: torch.Tensor = function.apply(x.permute(0, 2, 3, 1), weight, m)
    return y.permute(0, 3, 1, 2)


def test_the_library_is_there_if_it_could_be_compiled() -> None:
    """Otherwise, the tests of the compiled code would be skipped without a word."""
    assert native.available() or not shutil.which("c++")


needs_library = pytest.mark.skipif(not native.available(), reason="winograd.cpp is not compiled")


@pytest.mark.parametrize("m", TILES)
def test_transforms_equal_sums_of_products(m: int) -> None:
    a, b, g = transforms(m, torch.float64)
    x, w = drawn(m + 2).detach(), drawn(3).detach()
    wanted = [sum(float(x[i + k]) * float(w[k]) for k in range(3)) for i in range(m)]
    np.testing.assert_allclose(a.T @ ((g @ w) * (b @ x)), wanted, rtol=1e-10, atol=1e-10)


@given(m=tiles, height=sides, width=sides, channels=st.integers(1, 5), filters=st.integers(1, 5))
def test_outputs_and_gradients_equal_torchs(
    m: int, height: int, width: int, channels: int, filters: int
) -> None:
    x, weight = drawn(2, channels, height, width), drawn(filters, channels, 3, 3)
    wanted, y = F.conv2d(x, weight, padding=1), convolved(x, weight, m)
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
    assert y.permute(0, 2, 3, 1).is_contiguous()
    of_y = torch.cos(wanted.detach())
    torch.testing.assert_close(
        torch.autograd.grad(y, (x, weight), of_y),
        torch.autograd.grad(wanted, (x, weight), of_y),
        rtol=1e-10,
        atol=1e-10,
    )


@needs_library
@given(m=tiles, height=sides, width=sides, channels=st.integers(8, 40), filters=st.integers(8, 40))
def test_compiled_outputs_and_gradients_equal_torchs(
    m: int, height: int, width: int, channels: int, filters: int
) -> None:
    x, weight = drawn(3, channels, height, width), drawn(filters, channels, 3, 3)
    single_x, single_weight = (v.detach().float().requires_grad_() for v in (x, weight))
    wanted = F.conv2d(x, weight, padding=1)
    y = convolved(single_x, single_weight, m, compiled=True)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-3, atol=1e-3)
    assert y.permute(0, 2, 3, 1).is_contiguous()
    of_y = torch.cos(wanted.detach())
    gradients = torch.autograd.grad(y, (single_x, single_weight), of_y.float())
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, (x, weight), of_y), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)


@needs_library
@given(
    m=st.sampled_from((2, 4, 6)),
    height=sides,
    width=sides,
    channels=st.integers(8, 20),
    filters=st.integers(8, 20),
)
def test_compiled_maxima_and_gradients_equal_torchs(
    m: int, height: int, width: int, channels: int, filters: int
) -> None:
    height, width = height + 1, width + 1
    x, weight = drawn(3, channels, height, width), drawn(filters, channels, 3, 3)
    single_x, single_weight = (v.detach().float().requires_grad_() for v in (x, weight))
    wanted = F.max_pool2d(F.conv2d(x, weight, padding=1), 2)
    y = CompiledWinograd.apply(single_x.permute(0, 2, 3, 1), single_weight, m, True)
    y = y.permute(0, 3, 1, 2)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-3, atol=1e-3)
    of_y = torch.cos(wanted.detach())
    gradients = torch.autograd.grad(y, (single_x, single_weight), of_y.float())
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, (x, weight), of_y), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)


@needs_library
def test_maxima_treat_equal_values_and_nan_as_torch_does() -> None:
    weight = torch.zeros(8, 8, 3, 3)
    weight[range(8), range(8), 1, 1] = 1  # the identity
    x = torch.zeros(1, 8, 4, 4)
    x[0, 0, 0, 0] = float("nan")
    y = CompiledWinograd.apply(x.permute(0, 2, 3, 1), weight, 2, True).permute(0, 3, 1, 2)
    wanted = F.max_pool2d(F.conv2d(x, weight, padding=1), 2)
    assert y.isnan().any() and y.isnan().equal(wanted.isnan())
    x = torch.zeros(1, 8, 4, 4, requires_grad=True)
    y = CompiledWinograd.apply(x.permute(0, 2, 3, 1), weight, 2, True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    (wanted,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_library)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", [6, 7, 12])
def test_a_layer_with_pooling_equals_torchs(
    compiled: bool, bias: bool, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "available", lambda: compiled)
    torch.manual_seed(0)
    layer = Conv3x3(96, 96, bias=bias)
    x = torch.randn(4, 96, side, side)
    wanted = F.max_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)
    torch.testing.assert_close(layer(x, pool=True), wanted, rtol=1e-4, atol=1e-4)
    assert layer.eval()(x, pool=True).equal(wanted)


@needs_library
def test_compiled_code_gives_the_same_bits_again_and_the_same_maps_with_other_threads() -> None:
    x, weight = drawn(7, 24, 9, 9).float().detach(), drawn(16, 24, 3, 3).float().detach()
    x.requires_grad_()
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2, 5, 9):
            torch.set_num_threads(count)
            y = convolved(x, weight, 4, compiled=True)
            results.append((y, *torch.autograd.grad(y, x, y.detach())))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(ours.equal(first) for ours, first in zip(result, results[0], strict=True))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_library)])
@pytest.mark.parametrize("m", TILES)
def test_in_float32_rounding_stays_small(m: int, compiled: bool) -> None:
    x, weight = drawn(8, 64, 12, 12).detach(), drawn(32, 64, 3, 3).detach()
    wanted = F.conv2d(x, weight, padding=1)
    ours = convolved(x.float(), weight.float(), m, compiled=compiled) - wanted
    torchs = F.conv2d(x.float(), weight.float(), padding=1) - wanted
    assert float(ours.std()) < 30 * float(torchs.std())


@given(m=tiles, height=sides, width=sides)
def test_borders_are_copied_from_neighbours_and_added_back_to_them(
    m: int, height: int, width: int
) -> None:
    x = drawn(2, height, width, 3).detach()
    assert torch.equal(join_blocks(split_blocks(x, m), height, width), x)
    bordered = add_border(split_blocks(x, m))
    rows, columns = bordered.shape[3:5]
    padded = F.pad(x, (0, 0, 1, columns * m + 1 - width, 1, rows * m + 1 - height))
    for row in range(rows):
        for column in range(columns):
            window = padded[:, row * m : row * m + m + 2, column * m : column * m + m + 2]
            assert torch.equal(bordered[:, :, :, row, column], window.permute(1, 2, 0, 3))
    others = torch.sin(torch.arange(bordered.numel(), dtype=torch.float64)).view_as(bordered)
    # One function is the transpose of the other.
    there = (bordered * others).sum()
    back = (x * remove_border(others, height, width)).sum()
    torch.testing.assert_close(there, back)


def test_few_channels_and_small_maps_are_computed_directly() -> None:
    assert best_tile(3, 64, 32, 32) == 0
    assert best_tile(54, 64, 32, 32) == 0
    assert best_tile(512, 512, 1, 1) == 0
    assert best_tile(3, 64, 32, 32, compiled=True) == 0
    assert best_tile(54, 64, 32, 32, compiled=True) == 4


@pytest.mark.parametrize(("side", "m"), [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (8, 4), (12, 6)])
def test_tiles_fit_the_map(side: int, m: int) -> None:
    assert best_tile(256, 256, side, side) == m


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_library)])
def test_a_layer_equals_torchs_in_evaluation_and_nearly_in_training(
    compiled: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "available", lambda: compiled)
    torch.manual_seed(0)
    layer, plain = Conv3x3(128, 128, bias=bias), nn.Conv2d(128, 128, 3, padding=1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 128, 8, 8)
    assert best_tile(128, 128, 8, 8)
    assert not torch.equal(layer(x), plain(x))
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        F.silu(layer(x), inplace=True), F.silu(plain(x)), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(layer.eval()(x), plain(x))
    layer.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x))
    half = x.bfloat16()
    assert torch.equal(layer.bfloat16()(half), plain.bfloat16()(half))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_library)])
def test_tensors_that_require_no_gradient_get_none(compiled: bool) -> None:
    x, weight = drawn(2, 8, 8, 8), drawn(9, 8, 3, 3)
    tolerance = {"rtol": 1e-10, "atol": 1e-10}
    if compiled:
        x, weight = (value.detach().float().requires_grad_() for value in (x, weight))
        tolerance = {"rtol": 1e-4, "atol": 1e-3}
    of_x, of_weight = torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), (x, weight))
    for pictures in (x.detach(), x):
        for factors in (weight.detach(), weight):
            y = convolved(pictures, factors, 4, compiled=compiled)
            learning = [value for value in (pictures, factors) if value.requires_grad]
            got = torch.autograd.grad(y.sum(), learning) if learning else ()
            wanted = [of_x] * pictures.requires_grad + [of_weight] * factors.requires_grad
            torch.testing.assert_close(list(got), wanted, **tolerance)
            assert y.requires_grad == bool(learning)


def test_second_derivatives_are_refused() -> None:
    x, weight = drawn(2, 3, 8, 8), drawn(4, 3, 3, 3)
    loss = convolved(x, weight, 4).square().sum()
    (of_x,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        of_x.sum().backward()


@needs_library
def test_many_pictures_are_predicted_by_compiled_code_and_each_is_predicted_alone() -> None:
    torch.manual_seed(0)
    layer = Conv3x3(64, 64, bias=False).eval()
    x = torch.randn(FEW, 64, 8, 8)
    direct = layer(x)
    with torch.inference_mode():
        assert layer(x[:-1]).equal(direct[:-1])
        many = layer(x)
        assert not many.equal(direct)
        torch.testing.assert_close(many, direct, rtol=1e-4, atol=1e-4)
        assert layer(torch.cat([x[FEW // 2 :], x])).equal(torch.cat([many[FEW // 2 :], many]))
