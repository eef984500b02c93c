"""3x3 convolutions by Winograd's minimal filtering, with a fifth to a half of the multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4: a tile of
m x m outputs needs (m+2)**2 products a pair of channels instead of 9*m**2, and all tiles' products
are (m+2)**2 plain products of matrices, which a CPU does best. The transforms before and after cost
time for every channel, so it pays where there are many. Rounding errors grow with m, up to some
twenty times those of a direct convolution; for backward it keeps (m+2)**2 / m**2 times its input.
"""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)
"""Where polynomials are evaluated, the first m+1 of them; small numbers keep rounding errors small
(Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution", 2020)."""
TILES = range(2, len(POINTS))
DIRECT = 6.5
"""Time of a direct convolution, a pixel and pair of channels, in multiply-adds of large matrices: 9
by count, less by the clock of two cores with AVX2, where both were measured."""
TRANSFORM = 64.0
"""Time of the transforms, a tile's entry and channel, in the same unit."""
ALL = slice(None)
BORDERS: tuple[tuple[Any, Any, slice, slice], ...] = (
    (slice(1, -1), ALL, ALL, ALL),
    (0, -1, slice(1, None), slice(None, -1)),
    (-1, 0, slice(None, -1), slice(1, None)),
)
"""Along one axis: pixels of a tile, pixels of the block they are of, which tiles, which blocks. A
third faster than padding and two unfolds, and the way back is the same."""


@cache
def transforms(m: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices to filter m outputs by 3 weights.

    Of n = m+2 inputs x and weights w, the outputs are A.T @ ((G @ w) * (B @ x)).

    Returns:
        A (n, m), B (n, n) and G (n, 3).
    """
    points = np.array(POINTS[: m + 1])
    others = [np.delete(points, i) for i in range(m + 1)]
    scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    a, b, g = np.zeros((m + 2, m)), np.zeros((m + 2, m + 2)), np.zeros((m + 2, 3))
    a[:-1], a[-1, -1] = np.vander(points, m, increasing=True), 1
    b[:-1, :-1], b[-1] = [np.poly(rest)[::-1] for rest in others], np.poly(points)[::-1]
    g[:-1], g[-1, -1] = np.vander(points, 3, increasing=True) / np.array(scales)[:, None], 1
    return tuple(torch.from_numpy(each).to(dtype) for each in (a, b, g))  # type: ignore[return-value]


def best_tile(channels: int, filters: int, height: int, width: int) -> int:
    """Return the m of the tiles that a convolution is fastest with; 0 to compute it directly."""
    pairs, both = channels * filters, channels + filters
    times = {0: DIRECT * height * width * pairs}
    for m in TILES:
        entries = (m + 2) ** 2 * -(-height // m) * -(-width // m)
        times[m] = entries * (pairs + TRANSFORM * both)
    return min(times, key=lambda m: times[m])


def transformed(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Multiply both sides of (I, I, ...) tiles by a matrix (O, I): (O, O, ...)."""
    flat = tiles.flatten(2)
    flat = matrix @ (matrix @ flat.transpose(0, 1)).transpose(0, 1)
    return flat.view(*flat.shape[:2], *tiles.shape[2:])


class Winograd(torch.autograd.Function):
    """A 3x3 convolution of stride 1 with one pixel of zeros around, channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, m: int) -> Tensor:
        """Map (B, H, W, C) and (K, C, 3, 3) to (B, H, W, K), by tiles of m x m outputs."""
        filters, channels = weight.shape[:2]
        a, b, g = transforms(m, x.dtype)
        tiles = transformed(b, with_border(blocks(x, m)))
        inputs = tiles.view(len(b) ** 2, -1, channels)
        factors = transformed(g, weight.permute(2, 3, 0, 1)).view(len(b) ** 2, filters, channels)
        products = torch.bmm(inputs, factors.transpose(1, 2)).view(*tiles.shape[:-1], filters)
        ctx.save_for_backward(inputs, factors)
        ctx.m = m
        return joined(transformed(a.T, products), *x.shape[1:3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Go each step of `forward` the other way."""
        inputs, factors = ctx.saved_tensors
        _, filters, channels = factors.shape
        a, b, g = transforms(ctx.m, gradient.dtype)
        products = transformed(a, blocks(gradient, ctx.m))
        flat = products.view(len(b) ** 2, -1, filters)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            tiles = torch.bmm(flat, factors).view(*products.shape[:-1], channels)
            of_x = without_border(transformed(b.T, tiles), *gradient.shape[1:3])
        if ctx.needs_input_grad[1]:
            of_factors = torch.bmm(flat.transpose(1, 2), inputs)
            of_factors = of_factors.view(len(b), len(b), filters, channels)
            of_weight = transformed(g.T, of_factors).permute(2, 3, 0, 1)
        return of_x, of_weight, None


def blocks(x: Tensor, m: int) -> Tensor:
    """View (B, H, W, C) as (m, m, B, R, S, C): R rows of S blocks, zeros where they jut out."""
    count, height, width, channels = x.shape
    if height % m or width % m:
        x = F.pad(x, (0, 0, 0, -width % m, 0, -height % m))
    x = x.reshape(count, -(-height // m), m, -(-width // m), m, channels)
    return x.permute(2, 4, 0, 1, 3, 5)


def joined(parts: Tensor, height: int, width: int) -> Tensor:
    """Undo `blocks`: (m, m, B, R, S, C) to a new (B, H, W, C)."""
    m, _, count, rows, columns, channels = parts.shape
    x = parts.new_empty(count, rows * m, columns * m, channels)
    blocks(x, m).copy_(parts)
    return cropped(x, height, width)


def cropped(x: Tensor, height: int, width: int) -> Tensor:
    """Return the top left of a new (B, H, W, C): itself or a copy, as autograd needs, no view."""
    return x if (height, width) == x.shape[1:3] else x[:, :height, :width].clone()


def with_border(parts: Tensor) -> Tensor:
    """Give (m, m, B, R, S, C) blocks a pixel of their neighbours all around: (m+2, m+2, ...)."""
    m, _, *shape = parts.shape
    tiles = parts.new_empty(m + 2, m + 2, *shape)
    tiles[0, :, :, 0] = tiles[-1, :, :, -1] = 0
    tiles[:, 0, :, :, 0] = tiles[:, -1, :, :, -1] = 0
    for (k, p, r, q), (o, u, s, t) in product(BORDERS, BORDERS):
        tiles[k, o, :, r, s] = parts[p, u, :, q, t]
    return tiles


def without_border(tiles: Tensor, height: int, width: int) -> Tensor:
    """Undo `with_border`, adding each border to the neighbour it is of: to a new (B, H, W, C)."""
    m, rows, columns = len(tiles) - 2, *tiles.shape[3:5]
    x = joined(tiles[1:-1, 1:-1], rows * m, columns * m)
    parts = blocks(x, m)
    for (k, p, r, q), (o, u, s, t) in list(product(BORDERS, BORDERS))[1:]:
        parts[p, u, :, q, t] += tiles[k, o, :, r, s]
    return cropped(x, height, width)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the sides, the fastest way while training on a CPU.

    In evaluation it is nn.Conv2d to the bit; in training it differs by rounding.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K, H, W)."""
        m = self._tile(x) if self.training else 0
        if not m:
            return super().forward(x)
        y: Tensor = Winograd.apply(x.permute(0, 2, 3, 1), self.weight, m).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias[:, None, None]

    def _tile(self, x: Tensor) -> int:
        """Return the m of the tiles to compute by, 0 for torch's own convolution."""
        exact = x.dtype in (torch.float32, torch.float64)
        if x.device.type != "cpu" or not exact or torch.is_autocast_enabled("cpu"):
            return 0
        return best_tile(self.in_channels, self.out_channels, *x.shape[2:])
