"""From uint8 pictures to network input: preparation, and augmentation a batch at a time.

All randomness of an epoch is drawn up front from (seed, epoch), so that any batch of any epoch can
be made again without replaying the ones before it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.config import Config
from hundredfold.support.device import memory_format


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator of its own for each (seed, purpose): streams never touch."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Plan:
    """The random choices of one epoch over N pictures, each an (N,) tensor."""

    order: Tensor
    """int64, the order of visit: a permutation of 0..N-1, or N draws of them with replacement."""
    top: Tensor
    """int64, the crop's first row within the padded picture, by place in the order."""
    left: Tensor
    """int64, the crop's first column, by place in the order."""
    flip: Tensor
    """bool, by place in the order."""

    def to(self, device: torch.device) -> "Plan":
        """Return the plan on a device; it is drawn on the CPU, the same for every device."""
        return Plan(*(part.to(device) for part in (self.order, self.top, self.left, self.flip)))


def border(config: Config, images: Tensor) -> int:
    """Return the pixels of reflected border for pictures (N, C, H, W): `config.pad` of 32."""
    return round(config.pad * images.shape[-1] / 32)


def plan_epoch(labels: Tensor, pad: int, epoch: int, config: Config) -> Plan:
    """Draw the random choices of epoch number `epoch` (from 0) for pictures of these labels, (N,).

    The crop's corner lies within a border of `pad` pixels on each side.

    Alternating flips (Jordan, "94% on CIFAR-10 in 3.29 Seconds", 2024, section 3.6): each picture's
    first flip is a coin, then it is flipped every other epoch, so two epochs show both sides once.
    """
    rng, count = generator(config.seed, "epoch", epoch), len(labels)
    if config.balance == "sampling":
        chance = class_weights(labels).cpu()[labels.cpu()]
        order = torch.multinomial(chance, count, replacement=True, generator=rng)
    else:
        order = torch.randperm(count, generator=rng)
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=rng)
    if config.flip == "none":
        flip = torch.zeros(count, dtype=torch.bool)
    elif config.flip == "random":
        flip = torch.rand(count, generator=rng) < 0.5
    else:
        first = torch.rand(count, generator=generator(config.seed, "first flip")) < 0.5
        flip = (first ^ (epoch % 2 == 1))[order]
    return Plan(order, top, left, flip)


def class_weights(labels: Tensor, classes: int = 0) -> Tensor:
    """Return what to weigh each class by, so that all that are there weigh the same in total.

    Args:
        labels: (N,) int64.
        classes: their number, where the last ones may have no pictures.

    Returns:
        (C,) float32; their mean over the pictures is 1, that of a class without pictures is 0.
    """
    counts = labels.bincount(minlength=classes)
    return torch.where(counts > 0, len(labels) / (counts > 0).sum() / counts, 0.0)


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad by reflection, crop back to size at (top, left), then flip where told.

    One gather by index does all three at once: no padded copy is made, and each picture has its
    own window.

    Args:
        images: (B, C, H, W), any type; H and W larger than pad.
        top: (B,) int64, 0..2*pad.
        left: (B,) int64, 0..2*pad.
        flip: (B,) bool.
        pad: pixels of reflected border on each side.

    Returns:
        (B, C, H, W), of the same type.
    """
    count, channels, height, width = images.shape
    rows = _reflect(top[:, None] - pad + torch.arange(height, device=images.device), height)
    columns = _reflect(left[:, None] - pad + torch.arange(width, device=images.device), width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    flat = images.reshape(count, channels, -1)
    return flat.gather(2, index.expand(-1, channels, -1)).view(images.shape)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Mirror positions outside 0..size-1 back inside, the edge pixel not repeated."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def channel_stats(parts: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, standard deviation) a channel, of pixel values scaled to 0..1.

    Args:
        parts: each (B, 3, H, W) uint8. Exact: counted by value, not summed in floating point.
    """
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for images in parts:
        for i, channel in enumerate(images.transpose(0, 1)):
            counts[i] += torch.bincount(channel.reshape(-1), minlength=256).cpu()
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for share in counts.double() / counts.sum(1, keepdim=True):
        mean = (share * values).sum()
        means.append(mean.item())
        deviations.append((share * (values - mean) ** 2).sum().sqrt().item())
    return tuple(means), tuple(deviations)


def prepare(images: Tensor, mean: Tensor, std: Tensor, size: int = 0) -> Tensor:
    """Normalise by channel, and resize if told: the one way from pixels to network input.

    Args:
        images: (B, C, H, W) uint8.
        mean: (C,) floating point, of pixel values scaled to 0..1.
        std: (C,) of the same type, all above 0.
        size: side of the result in pixels (bilinear, antialiased); 0 to leave as it is.

    Returns:
        (B, C, size, size) of the mean's type, in the device's `memory_format`.
    """
    x = images
    if size and x.shape[-2:] != (size, size):
        rows, columns = (resampling(side, size, mean.device, mean.dtype) for side in x.shape[-2:])
        x = ((x.to(mean.dtype) @ columns.T).transpose(2, 3) @ rows.T).transpose(2, 3)
    # One multiply-add a pixel: (x / 255 - mean) / std.
    scale = (1 / (255 * std)).view(1, -1, 1, 1)
    shift = (mean / std).view(1, -1, 1, 1)
    return x.to(mean.dtype, memory_format=memory_format(x.device)) * scale - shift


@cache
def resampling(side: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (size, side) matrix that resizes a column of pixels, antialiased.

    Resizing is linear: as two products of matrices it takes a third of the time of
    `F.interpolate`, from whose resizing of the unit vectors the matrix is made.
    """
    columns = torch.eye(side)[None, None]
    matrix = F.interpolate(columns, size=(size, side), mode="bilinear", antialias=True)[0, 0]
    return matrix.to(device, dtype)
