"""3x3 convolutions by Winograd's minimal filtering, with a fifth to a half of the multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4: a tile of
m x m outputs needs (m+2)**2 products per pair of channels instead of 9*m**2. The products of all
tiles are (m+2)**2 plain matrix products, which a CPU computes fastest. The transforms before and
after take time for every channel, so the method pays off where there are many channels. Rounding
errors grow with m, up to about twenty times those of a direct convolution.

There are two versions: compiled code, where the installation could compile it, and torch for
everything else. Both compute the same up to rounding. The method rounds too much for bfloat16, for
which there is another one (unfolded.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.models import winograd_compiled
from hundredfold.models.unfolded import MOST_PIXELS, UnfoldedConv3x3
from hundredfold.models.winograd_compiled import CompiledWinograd
from hundredfold.models.winograd_torch import POINTS, TorchWinograd

TILES = range(2, len(POINTS))
FEW = 64
"""Number of pictures from which on a prediction takes less time, although it transforms the
weights."""
DIRECT = 6.5
"""Time of a direct convolution per pixel and pair of channels, in multiply-adds of large matrices.
The count is 9; the time measured on two cores with AVX2 is less."""
TRANSFORM = 64.0
"""Time of the transforms in torch per entry of a tile and channel, in the same unit."""
COMPILED_DIRECT, COMPILED_TRANSFORM = 7.0, 4.0
"""The same for compiled code, whose products take a little less time, and whose transforms take
time in proportion to m+2."""


def best_tile(
    channels: int, filters: int, height: int, width: int, *, compiled: bool = False
) -> int:
    """Return the tile size m with which a convolution is fastest; 0 to compute it directly."""
    pairs, maps = channels * filters, channels + filters
    times = {0: (COMPILED_DIRECT if compiled else DIRECT) * height * width * pairs}
    for m in TILES:
        entries = (m + 2) ** 2 * -(-height // m) * -(-width // m)
        transform = COMPILED_TRANSFORM * (m + 2) if compiled else TRANSFORM
        times[m] = entries * (pairs + transform * maps)
    return min(times, key=lambda m: times[m])


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the size of the map, and is fast on a CPU.

    In evaluation mode, its outputs are those of nn.Conv2d to the bit. In training mode on a CPU,
    and under `torch.inference_mode` with FEW pictures or more and compiled code, they may differ by
    rounding.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor, *, pool: bool = False) -> Tensor:
        """Map (B, C, H, W) to (B, K, H, W); with `pool`, take the maximum of each 2 x 2 outputs."""
        unfolds, (m, compiled) = self._unfolds(x), self._tile(x)
        if not unfolds and not m:
            y = super().forward(x)
            return F.max_pool2d(y, 2) if pool else y
        pooled, channels_last = compiled and pool and m % 2 == 0, x.permute(0, 2, 3, 1)
        if unfolds:
            y = UnfoldedConv3x3.apply(channels_last, self.weight)
        elif compiled:
            y = CompiledWinograd.apply(channels_last, self.weight, m, pooled)
        else:
            y = TorchWinograd.apply(channels_last, self.weight, m)
        y = y.permute(0, 3, 1, 2)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None, None]
        return F.max_pool2d(y, 2) if pool and not pooled else y

    def _unfolds(self, x: Tensor) -> bool:
        """Return whether to compute one product of the unfolded map, in bfloat16."""
        if x.device.type != "cpu" or not self.training or not torch.is_autocast_enabled("cpu"):
            return False
        small = x.shape[2] * x.shape[3] <= MOST_PIXELS
        return small and torch.get_autocast_dtype("cpu") == torch.bfloat16

    def _tile(self, x: Tensor) -> tuple[int, bool]:
        """Return the tile size m of Winograd's method, and whether to use compiled code.

        m is 0 for another method. Only trainings and large predictions on a CPU ask for the
        library, because compilers and exporters that trace the network must not come across it.
        """
        exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        if x.device.type != "cpu" or not exact:
            return 0, False
        if not self.training and not (torch.is_inference_mode_enabled() and len(x) >= FEW):
            return 0, False
        pairs = self.in_channels, self.out_channels
        compiled = winograd_compiled.suits(x.dtype, *pairs)
        if not self.training and not compiled:
            return 0, False
        m = best_tile(*pairs, *x.shape[2:], compiled=compiled)
        return m, compiled and m > 0
