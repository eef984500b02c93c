"""Small, fast networks: a frozen whitening stem, then a few wide groups of convolutions.

They follow Keller Jordan's airbench ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024) with
a whitening first layer (section 3.2) and identity initialisation (3.3). Unlike there, the stem of
WhiteNet has a stride of 2, and more for larger pictures, so that a CPU works on small maps with
many channels, which it does fastest. WhiteResNet keeps the full resolution, and weights its
channels by squeeze-and-excitation (Hu et al., "Squeeze-and-Excitation Networks", 2018).
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.models.winograd import Conv3x3
from hundredfold.support.errors import UserError

CHUNK_PIXELS = 1000 * 32**2
"""Number of pixels of the pictures whose patches are in memory at one time."""
FILTERS = 27
"""Number of whitening filters in the stem: the directions of largest variance among patches.
Patches of 3 x 3 pixels have no more than these."""
SQUEEZE = 8
"""Ratio of the channels to the width of the layer that computes their weights."""
HEAD_SCALE = 0.14
"""Factor of the outputs of WhiteResNet. It has the effect of a learning rate of the head that is
0.14 squared times that of the biases, which need a far higher rate."""


def stem_stride(side: int, deep: bool = False) -> int:
    """Return the stride of the stem for pictures with a given side.

    The resulting maps have a side of 16 to 48 pixels, or twice that in a deep network.
    """
    stride = 2 if side < 96 else 4 if side < 192 else 8
    return stride // 2 if deep else stride


def patch_covariance(images: Tensor, patch: int) -> Tensor:
    """Return the (D, D) float64 second moments of all square patches, where D = 3*patch**2.

    Args:
        images: (N, 3, H, W) float32, normalised by channel.
        patch: side of the patches in pixels.
    """
    covariance, count = torch.zeros(3 * patch**2, 3 * patch**2, dtype=torch.float64), 0
    for chunk in images.split(max(1, CHUNK_PIXELS // images[0, 0].numel())):
        patches = chunk.double().unfold(2, patch, patch // 2).unfold(3, patch, patch // 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * patch**2)
        covariance += patches.T @ patches
        count += len(patches)
    return covariance / count


def whitening_filters(images: Tensor, patch: int = 3, epsilon: float = 5e-4) -> Tensor:
    """Return filters whose responses to patches of pictures are uncorrelated with variance one.

    Args:
        images: (N, 3, H, W) float32, normalised by channel.
        patch: side of the filters in pixels.
        epsilon: added to the eigenvalues, so that directions with almost no variance stay small.

    Returns:
        (F, 3, patch, patch) float32, by falling variance; F is FILTERS, or the number of
        directions if there are fewer.
    """
    eigenvalues, vectors = torch.linalg.eigh(patch_covariance(images, patch))
    filters: Tensor = (vectors / (eigenvalues + epsilon).sqrt()).T.flip(0)[:FILTERS]
    return filters.float().view(-1, 3, patch, patch).contiguous()


class ConvGroup(nn.Module):
    """3x3 convolutions with batch norm and SiLU, where max-pooling follows the first.

    In groups of more than two, a residual connection leads from the first to the last, and
    squeeze-and-excitation follows.
    """

    def __init__(self, channels: Sequence[int], *, batch_norm: bool, residual: bool) -> None:
        super().__init__()
        deep, width = len(channels) > 3, channels[-1]
        self.residual = residual and deep
        self.convs = nn.ModuleList(
            Conv3x3(i, o, bias=not batch_norm) for i, o in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(o) if batch_norm else nn.Identity() for o in channels[1:]
        )
        inner = max(1, width // SQUEEZE)
        self.excite = (
            nn.Sequential(nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, width), nn.Sigmoid())
            if deep
            else None
        )
        for conv, norm, i in zip(self.convs, self.norms, channels, strict=False):
            with torch.no_grad():  # the identity for the first channels; the rest stay random
                nn.init.dirac_(conv.weight[:i])  # type: ignore[index]
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.requires_grad_(False)  # only the bias is trained

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels[0], H, W) to (B, channels[-1], H/2, W/2)."""
        x = F.silu(self.norms[0](self.convs[0](x, pool=True)), inplace=True)
        y, last = x, len(self.convs) - 1
        for i in range(1, last + 1):
            y = self.norms[i](self.convs[i](y))
            y = F.silu(y + x if self.residual and i == last else y, inplace=True)
        if self.excite:
            y = y * self.excite(y.mean((2, 3)))[:, :, None, None]
        return y


class WhiteNet(nn.Module):
    """A frozen whitening stem, groups of convolutions, global max-pooling and a linear head.

    Args:
        classes: number of outputs.
        widths: channels of each group.
        deep: whether groups have three convolutions instead of two, at twice the resolution.
        side: side of the pictures in pixels, which decides the stride of the stem.
        batch_norm: whether batch normalisation follows the convolutions.
        residual: whether groups of three have a residual connection.

    Raises:
        UserError: there are no groups, or more than three.
    """

    has_batch_norm: ClassVar[bool] = True

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = (64, 128, 256),
        *,
        deep: bool = False,
        side: int = 32,
        batch_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= len(widths) <= 3:
            raise UserError(f"whitenet has one to three groups, but --widths names {len(widths)}.")
        stride = stem_stride(side, deep)
        patch, depth = stride + 1, 3 if deep else 2
        stem = 2 * min(FILTERS, 3 * patch**2)  # each filter, and its negative
        self.stem = nn.Conv2d(3, stem, patch, stride, padding=stride // 2, bias=False)
        self.stem.weight.requires_grad_(False)  # so no gradient flows below the first group
        group = partial(ConvGroup, batch_norm=batch_norm, residual=residual)
        self.groups = nn.Sequential(
            *(group([i] + [o] * depth) for i, o in itertools.pairwise((stem, *widths)))
        )
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = HEAD_SCALE if deep else 1.0

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """Set the frozen stem from the statistics of normalised pictures (N, 3, H, W)."""
        filters = whitening_filters(images, self.stem.kernel_size[0])
        self.stem.weight.copy_(torch.cat([filters, -filters]))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map after each group, for pictures (B, 3, H, W) with sides of at least 16."""
        x = F.relu(self.stem(x), inplace=True)  # (B, stem, H/stride, W/stride)
        for group in self.groups:
            x = group(x)  # (B, width, half of H, half of W)
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) with sides of at least 16 to logits (B, classes)."""
        *_, x = self.stages(x)
        # The gradient of amax looks for the maximum by its value and may find none when compiled in
        # lower precision. adaptive_max_pool2d takes half a millisecond on CUDA.
        x = x.flatten(2).max(2).values
        logits: Tensor = self.head(x) * self.scale
        return logits


class WhiteResNet(WhiteNet):
    """WhiteNet at twice the resolution, in groups of three with a residual connection.

    The arguments are those of WhiteNet.
    """

    has_residual: ClassVar[bool] = True

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = (64, 192, 512),
        *,
        side: int = 32,
        batch_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(
            classes, widths, deep=True, side=side, batch_norm=batch_norm, residual=residual
        )
