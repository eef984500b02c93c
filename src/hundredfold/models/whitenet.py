"""Small fast networks: a frozen whitening stem, then a few wide groups of convolutions.

After Keller Jordan's airbench ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024): whitening
first layer (section 3.2) and identity initialisation (3.3). Unlike there, the stem of the fastest
strides by 2, and by more on larger pictures, so that a CPU works on small maps of many channels,
which it does best. The deep one keeps the full resolution, and weighs its channels by squeeze and
excitation (Hu et al., "Squeeze-and-Excitation Networks", 2018).
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.models.winograd import Conv3x3
from hundredfold.support.errors import UserError

AT_ONCE = 1000 * 32**2
"""Pixels of pictures whose patches are in memory together."""
FILTERS = 27
"""Directions of patches that the stem looks along, the strongest: all that 3 x 3 pixels have."""
SQUEEZE = 8
"""Channels to one of the layer that weighs them."""
HEAD_SCALE = 0.14
"""What the deep network's outputs are multiplied by, as if its head learned at 0.14 squared times
the rate of its biases: these want a far higher one."""


def stem_stride(side: int, deep: bool = False) -> int:
    """Return by how much the stem strides for pictures of a side.

    What leaves maps of 16 to 47 pixels a side; of a deep network, twice as many.
    """
    stride = 2 if side < 96 else 4 if side < 192 else 8
    return stride // 2 if deep else stride


def patch_covariance(images: Tensor, patch: int) -> Tensor:
    """Return the (D, D) float64 second moments of all patch x patch patches, D = 3*patch**2.

    Args:
        images: (N, 3, H, W) float32, normalised by channel.
        patch: side in pixels.
    """
    covariance, count = torch.zeros(3 * patch**2, 3 * patch**2, dtype=torch.float64), 0
    for some in images.split(max(1, AT_ONCE // images[0, 0].numel())):
        patches = some.double().unfold(2, patch, patch // 2).unfold(3, patch, patch // 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * patch**2)
        covariance += patches.T @ patches
        count += len(patches)
    return covariance / count


def whitening_filters(images: Tensor, patch: int = 3, epsilon: float = 5e-4) -> Tensor:
    """Return filters whose responses to patches of `images` are uncorrelated with variance one.

    Args:
        images: (N, 3, H, W) float32, normalised by channel.
        patch: side of the filters in pixels.
        epsilon: added to the eigenvalues, so that directions of next to no variance stay small.

    Returns:
        (F, 3, patch, patch) float32, the largest variance first; F is FILTERS, or as many
        directions as there are.
    """
    eigenvalues, vectors = torch.linalg.eigh(patch_covariance(images, patch))
    filters: Tensor = (vectors / (eigenvalues + epsilon).sqrt()).T.flip(0)[:FILTERS]
    return filters.float().view(-1, 3, patch, patch).contiguous()


class ConvGroup(nn.Module):
    """3x3 convolutions with batch norm and SiLU; the first halves each side.

    Where there are more than two, a residual connection leads from the first to the last, and at
    the end the channels are weighed.
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
            with torch.no_grad():  # the first channels pass through, the rest stay random
                nn.init.dirac_(conv.weight[:i])  # type: ignore[index]
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.requires_grad_(False)  # only the bias learns

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels[0], H, W) to (B, channels[-1], H/2, W/2)."""
        x = F.silu(self.norms[0](F.max_pool2d(self.convs[0](x), 2)), inplace=True)
        y, last = x, len(self.convs) - 1
        for i in range(1, last + 1):
            y = self.norms[i](self.convs[i](y))
            y = F.silu(y + x if self.residual and i == last else y, inplace=True)
        if self.excite:
            y = y * self.excite(y.mean((2, 3)))[:, :, None, None]
        return y


class WhiteNet(nn.Module):
    """A frozen whitening stem, groups, global max-pooling and a linear head.

    Args:
        classes: number of outputs.
        widths: channels of each group.
        deep: groups of three convolutions instead of two, and twice the resolution.
        side: of the pictures it is meant for, in pixels: decides the stem's stride.
        batch_norm: whether it has batch normalisation.
        residual: whether groups of three have a residual connection.

    Raises:
        UserError: no group, or more than a picture of 16 pixels can be halved by.
    """

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
        stem = 2 * min(FILTERS, 3 * patch**2)  # each filter and its negative
        self.stem = nn.Conv2d(3, stem, patch, stride, padding=stride // 2, bias=False)
        self.stem.weight.requires_grad_(False)  # so no gradient flows below the first group
        group = partial(ConvGroup, batch_norm=batch_norm, residual=residual)
        self.groups = nn.Sequential(
            *(group([i] + [o] * depth) for i, o in itertools.pairwise((stem, *widths)))
        )
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = HEAD_SCALE if deep else 1.0

    @torch.no_grad()
    def whiten_(self, images: Tensor) -> None:
        """Set the frozen stem from the statistics of `images`: (N, 3, H, W), normalised."""
        filters = whitening_filters(images, self.stem.kernel_size[0])
        self.stem.weight.copy_(torch.cat([filters, -filters]))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map after each group of pictures (B, 3, H, W), sides of at least 16."""
        x = F.relu(self.stem(x), inplace=True)  # (B, stem, H/stride, W/stride)
        for group in self.groups:
            x = group(x)  # (B, width, half of H, half of W)
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W), sides of at least 16, to logits (B, classes)."""
        *_, x = self.stages(x)
        # Not amax, whose gradient looks for the maximum by value: compiled, in lower precision, it
        # can find none. Nor adaptive_max_pool2d, which takes CUDA half a millisecond.
        x = x.flatten(2).max(2).values
        logits: Tensor = self.head(x) * self.scale
        return logits
