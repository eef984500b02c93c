"""3x3 convolutions as one matrix product, for bfloat16 on a CPU.

Processors with matrix units (Intel's AMX) multiply large bfloat16 matrices about ten times as fast
as they multiply float32 vectors. torch's own bfloat16 convolutions reach that on large maps, but on
small maps with many channels, their gradients of the weights take five to ten times as long as one
product of the unfolded map (Chellapilla et al., "High Performance Convolutional Neural Networks for
Document Processing", 2006, section 3.2).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_PIXELS = 49
"""Largest maps, in pixels, for which this is faster than torch's own convolution."""


class UnfoldedConv3x3(torch.autograd.Function):
    """A 3x3 convolution of stride 1 in bfloat16, padded by one pixel of zeros, channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Map (B, H, W, C) and (K, C, 3, 3) of any type to (B, H, W, K) bfloat16."""
        rows, factors = unfolded(x.bfloat16()), weight.bfloat16()
        ctx.save_for_backward(rows, factors)
        ctx.types = x.dtype, weight.dtype
        y = rows @ factors.permute(2, 3, 1, 0).flatten(0, 2)
        return y.view(*x.shape[:3], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of the input and the weights, in the types of those."""
        rows, factors = ctx.saved_tensors
        filters, channels = factors.shape[:2]
        gradient, of_x = gradient.bfloat16(), None
        if ctx.needs_input_grad[0]:
            turned = factors.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)
            of_x = (unfolded(gradient) @ turned).view(*gradient.shape[:3], channels)
            of_x = of_x.to(ctx.types[0])
        of_weight = gradient.reshape(-1, filters).T @ rows
        of_weight = of_weight.view(filters, 3, 3, channels).permute(0, 3, 1, 2)
        return of_x, of_weight.to(ctx.types[1])


def unfolded(x: Tensor) -> Tensor:
    """Copy the 3 x 3 neighbours of each pixel: (B, H, W, C) becomes (B*H*W, 9*C)."""
    count, height, width, channels = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(count * height * width, 9 * channels)
