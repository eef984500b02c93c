"""Winograd's minimal filtering for 3x3 convolutions, compiled (native/winograd.cpp)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hundredfold.models.winograd_torch import transformed, transforms
from hundredfold.support import native
from hundredfold.support.native import Shape

COLUMNS = 16
"""Numbers of channels are rounded up to a multiple of this, as in native/tiles.h."""
LEAST_CHANNELS = 8
"""The library reads eight channels at a time."""
MOST_PAIRS = 256 * 256
"""Pairs of channels above which the large matrix products of torch are faster."""
GROUP = 96
"""Number of tiles that are processed together. Their entries fit the cache of a core; more would
make no difference, and fewer would read the weights more often."""


def suits(dtype: torch.dtype, channels: int, filters: int) -> bool:
    """Return whether the library is there and suits a convolution on a CPU."""
    fits = min(channels, filters) >= LEAST_CHANNELS and channels * filters <= MOST_PAIRS
    return native.available() and dtype == torch.float32 and fits


class CompiledWinograd(torch.autograd.Function):
    """A 3x3 convolution of stride 1, padded by one pixel of zeros, with channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, m: int, pool: bool = False) -> Tensor:
        """Map (B, H, W, C) and (K, C, 3, 3) to (B, H, W, K), in tiles of m x m outputs.

        With `pool`, return the maxima of 2 x 2 outputs, (B, H/2, W/2, K); m is even then.
        """
        _, _, g = transforms(m, x.dtype)
        factors = transformed(g, weight.permute(2, 3, 1, 0)).flatten(0, 1)
        x = x.contiguous()
        y, chosen = convolve(x, factors, m, pool=pool)
        ctx.save_for_backward(x, factors, chosen)
        ctx.m = m
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients of the input and the weights."""
        x, factors, chosen = ctx.saved_tensors
        of_x, of_factors = differentiate(
            (x, factors, chosen), gradient.contiguous(), ctx.m, of_x=ctx.needs_input_grad[0]
        )
        _, _, g = transforms(ctx.m, x.dtype)
        of_weight = transformed(g.T, of_factors.unflatten(0, (ctx.m + 2, ctx.m + 2)))
        return of_x, of_weight.permute(3, 2, 0, 1), None, None


def convolve(
    x: Tensor, factors: Tensor, m: int, *, pool: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Convolve maps with transformed weights.

    Args:
        x: (B, H, W, C) float32, contiguous.
        factors: ((m+2)**2, C, K) float32.
        m: side of the blocks of outputs in pixels, 2 to 6; even with `pool`.
        pool: whether to take the maximum of each 2 x 2 outputs.

    Returns:
        (B, H, W, K) and None. With `pool`, (B, H/2, W/2, K) maxima, and uint8 of that shape: which
        of the four outputs each is, in the order of rows.
    """
    (count, height, width, _), filters = x.shape, factors.shape[2]
    half = 2 if pool else 1
    y = x.new_empty(count, height // half, width // half, filters)
    chosen = torch.empty_like(y, dtype=torch.uint8) if pool else None
    shape = _shape(x, filters, m)
    tensors = (x, _padded(factors), y, chosen, _scratch(shape))
    native.library().winograd_convolve(*_pointers(*tensors), shape)
    return y, chosen


def differentiate(
    saved: tuple[Tensor, Tensor, Tensor | None], of_y: Tensor, m: int, *, of_x: bool
) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of the input, if wanted, and of the transformed weights.

    Args:
        saved: the first two arguments of `convolve`, and the second tensor that it returned.
        of_y: the gradient of the first tensor that `convolve` returned, contiguous.
        m: as in `convolve`.
        of_x: whether the gradient of the input is wanted.

    Returns:
        (B, H, W, C) or None, and ((m+2)**2, C, K).
    """
    x, factors, chosen = saved
    _, channels, filters = factors.shape
    shape = _shape(x, filters, m)
    of_factors = x.new_zeros(shape.threads, len(factors), channels, _rounded(filters))
    turned = _padded(factors.transpose(1, 2)) if of_x else None
    gradient = torch.empty_like(x) if of_x else None
    tensors = (x, of_y, chosen, turned, gradient, of_factors, _scratch(shape))
    native.library().winograd_differentiate(*_pointers(*tensors), shape)
    return gradient, of_factors.sum(0)[:, :, :filters]


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    """Return the addresses of tensors, which the caller must keep as long as they are used."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _shape(x: Tensor, filters: int, m: int) -> Shape:
    return Shape(*x.shape, filters, m, GROUP, torch.get_num_threads())


def _scratch(shape: Shape) -> Tensor:
    return torch.empty(shape.threads * native.library().winograd_scratch(shape))


def _rounded(channels: int) -> int:
    return -(-channels // COLUMNS) * COLUMNS


def _padded(factors: Tensor) -> Tensor:
    """Return contiguous factors with the last dimension rounded up, filled with zeros."""
    return F.pad(factors, (0, _rounded(factors.shape[2]) - factors.shape[2])).contiguous()
