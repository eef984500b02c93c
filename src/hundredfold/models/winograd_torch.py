"""Winograd's minimal filtering for 3x3 convolutions, in torch.

winograd.py explains the method. For the backward pass, this version stores (m+2)**2 / m**2 times
its input.
"""

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)
"""Points at which polynomials are evaluated; tiles of m x m outputs use the first m+1. Small
numbers keep rounding errors small (Barabasz et al., "Error Analysis and Improving the Accuracy of
Winograd Convolution", 2020)."""
ALL = slice(None)


class Border(NamedTuple):
    """Pixels along one axis that a tile copies from a block: its own block or a neighbour."""

    tile_pixels: Any
    """Where the pixels go within the tile: an index or a slice."""
    block_pixels: Any
    """Where the pixels are within the block: an index or a slice."""
    tiles: slice
    """Which tiles receive them."""
    blocks: slice
    """Which blocks they come from."""


BORDERS = (
    Border(slice(1, -1), ALL, ALL, ALL),
    Border(0, -1, slice(1, None), slice(None, -1)),
    Border(-1, 0, slice(None, -1), slice(1, None)),
)
"""The middle of a tile, the pixel before it, and the pixel after it. Copying them is a third faster
than padding and two unfolds, and the backward pass does the same in reverse."""


@cache
def transforms(m: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices that compute m outputs of a filter of 3 weights.

    For n = m+2 inputs x and weights w, the outputs are A.T @ ((G @ w) * (B @ x)).

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
    return tuple(torch.from_numpy(matrix).to(dtype) for matrix in (a, b, g))  # type: ignore[return-value]


def transformed(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Multiply both sides of (I, I, ...) tiles by a matrix (O, I): (O, O, ...)."""
    flat = tiles.flatten(2)
    flat = matrix @ (matrix @ flat.transpose(0, 1)).transpose(0, 1)
    return flat.view(*flat.shape[:2], *tiles.shape[2:])


class TorchWinograd(torch.autograd.Function):
    """A 3x3 convolution of stride 1, padded by one pixel of zeros, with channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, m: int) -> Tensor:
        """Map (B, H, W, C) and (K, C, 3, 3) to (B, H, W, K), in tiles of m x m outputs."""
        filters, channels = weight.shape[:2]
        a, b, g = transforms(m, x.dtype)
        tiles = transformed(b, add_border(split_blocks(x, m)))
        inputs = tiles.view(len(b) ** 2, -1, channels)
        factors = transformed(g, weight.permute(2, 3, 0, 1)).view(len(b) ** 2, filters, channels)
        products = torch.bmm(inputs, factors.transpose(1, 2)).view(*tiles.shape[:-1], filters)
        ctx.save_for_backward(inputs, factors)
        ctx.m = m
        return join_blocks(transformed(a.T, products), *x.shape[1:3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of the input and the weights: each step of `forward` in reverse."""
        inputs, factors = ctx.saved_tensors
        _, filters, channels = factors.shape
        a, b, g = transforms(ctx.m, gradient.dtype)
        products = transformed(a, split_blocks(gradient, ctx.m))
        flat = products.view(len(b) ** 2, -1, filters)
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            tiles = torch.bmm(flat, factors).view(*products.shape[:-1], channels)
            x_gradient = remove_border(transformed(b.T, tiles), *gradient.shape[1:3])
        if ctx.needs_input_grad[1]:
            factor_gradient = torch.bmm(flat.transpose(1, 2), inputs)
            factor_gradient = factor_gradient.view(len(b), len(b), filters, channels)
            weight_gradient = transformed(g.T, factor_gradient).permute(2, 3, 0, 1)
        return x_gradient, weight_gradient, None


def split_blocks(x: Tensor, m: int) -> Tensor:
    """View (B, H, W, C) as (m, m, B, R, S, C): R rows of S blocks, padded with zeros to fit."""
    count, height, width, channels = x.shape
    if height % m or width % m:
        x = F.pad(x, (0, 0, 0, -width % m, 0, -height % m))
    x = x.reshape(count, -(-height // m), m, -(-width // m), m, channels)
    return x.permute(2, 4, 0, 1, 3, 5)


def join_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """Undo `split_blocks`: copy (m, m, B, R, S, C) to a new (B, H, W, C)."""
    m, _, count, rows, columns, channels = blocks.shape
    x = blocks.new_empty(count, rows * m, columns * m, channels)
    split_blocks(x, m).copy_(blocks)
    return crop(x, height, width)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Return the top left of a new (B, H, W, C): the tensor itself or a copy.

    Autograd does not allow a custom function to return a view.
    """
    return x if (height, width) == x.shape[1:3] else x[:, :height, :width].clone()


def add_border(blocks: Tensor) -> Tensor:
    """Return (m, m, B, R, S, C) blocks with a border of one pixel of their neighbours.

    Returns:
        Tiles (m+2, m+2, B, R, S, C); the border is zero at the edge of the map.
    """
    m, _, *shape = blocks.shape
    tiles = blocks.new_empty(m + 2, m + 2, *shape)
    tiles[0, :, :, 0] = tiles[-1, :, :, -1] = 0
    tiles[:, 0, :, :, 0] = tiles[:, -1, :, :, -1] = 0
    for row, column in product(BORDERS, BORDERS):
        source = blocks[row.block_pixels, column.block_pixels, :, row.blocks, column.blocks]
        tiles[row.tile_pixels, column.tile_pixels, :, row.tiles, column.tiles] = source
    return tiles


def remove_border(tiles: Tensor, height: int, width: int) -> Tensor:
    """Return the transpose of `add_border`: add each border pixel to the block it was copied from.

    Returns:
        A new (B, H, W, C).
    """
    m, rows, columns = len(tiles) - 2, *tiles.shape[3:5]
    x = join_blocks(tiles[1:-1, 1:-1], rows * m, columns * m)
    blocks = split_blocks(x, m)
    for row, column in list(product(BORDERS, BORDERS))[1:]:
        border = tiles[row.tile_pixels, column.tile_pixels, :, row.tiles, column.tiles]
        blocks[row.block_pixels, column.block_pixels, :, row.blocks, column.blocks] += border
    return crop(x, height, width)
