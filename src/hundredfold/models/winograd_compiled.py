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
"""Numbers of channels are rounded up to a multiple of this, as in winograd.cpp."""
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
    def forward(ctx: Any, x: Tensor, weight: Tensor, m: int) -> Tensor:
        """Map (B, H, W, C) and (K, C, 3, 3) to (B, H, W, K), in tiles of m x m outputs."""
        _, _, g = transforms(m, x.dtype)
        factors = transformed(g, weight.permute(2, 3, 1, 0)).flatten(0, 1)
        x = x.contiguous()
        ctx.save_for_backward(x, factors)
        ctx.m = m
        return convolve(x, factors, m)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of the input and the weights."""
        x, factors = ctx.saved_tensors
        of_x, of_factors = differentiate(
            x, gradient.contiguous(), factors, ctx.m, of_x=ctx.needs_input_grad[0]
        )
        _, _, g = transforms(ctx.m, x.dtype)
        of_weight = transformed(g.T, of_factors.unflatten(0, (ctx.m + 2, ctx.m + 2)))
        return of_x, of_weight.permute(3, 2, 0, 1), None


def convolve(x: Tensor, factors: Tensor, m: int) -> Tensor:
    """Convolve maps with transformed weights.

    Args:
        x: (B, H, W, C) float32, contiguous.
        factors: ((m+2)**2, C, K) float32.
        m: side of the blocks of outputs in pixels, 2 to 6.

    Returns:
        (B, H, W, K).
    """
    filters, code = factors.shape[2], native.library()
    shape, factors = _shape(x, filters, m), _padded(factors)
    y, scratch = x.new_empty(*x.shape[:3], filters), _scratch(shape)
    code.winograd_convolve(*map(Tensor.data_ptr, (x, factors, y, scratch)), shape)
    return y


def differentiate(
    x: Tensor, of_y: Tensor, factors: Tensor, m: int, *, of_x: bool
) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of the input, if wanted, and of the transformed weights.

    Args:
        x: (B, H, W, C) float32, contiguous: the input.
        of_y: (B, H, W, K) float32, contiguous: the gradient of the output.
        factors: ((m+2)**2, C, K) float32.
        m: side of the blocks of outputs in pixels, 2 to 6.
        of_x: whether the gradient of the input is wanted.

    Returns:
        (B, H, W, C) or None, and ((m+2)**2, C, K).
    """
    _, channels, filters = factors.shape
    shape = _shape(x, filters, m)
    of_factors = x.new_zeros(shape.threads, len(factors), channels, _rounded(filters))
    turned = _padded(factors.transpose(1, 2)) if of_x else None
    gradient = torch.empty_like(x) if of_x else None
    pointers = [None if t is None else t.data_ptr() for t in (x, of_y, turned, gradient)]
    scratch = _scratch(shape)
    native.library().winograd_differentiate(
        *pointers, of_factors.data_ptr(), scratch.data_ptr(), shape
    )
    return gradient, of_factors.sum(0)[:, :, :filters]


def _shape(x: Tensor, filters: int, m: int) -> Shape:
    return Shape(*x.shape, filters, m, GROUP, torch.get_num_threads())


def _scratch(shape: Shape) -> Tensor:
    return torch.empty(shape.threads * native.library().winograd_scratch(shape))


def _rounded(channels: int) -> int:
    return -(-channels // COLUMNS) * COLUMNS


def _padded(factors: Tensor) -> Tensor:
    """Return contiguous factors with the last dimension rounded up, filled with zeros."""
    return F.pad(factors, (0, _rounded(factors.shape[2]) - factors.shape[2])).contiguous()
