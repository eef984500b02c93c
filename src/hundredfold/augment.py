"""From uint8 pictures to network input: augmentation by the batch, and preparation.

All random choices of an epoch are drawn at its start from (seed, epoch), so any batch of any epoch
can be made again without repeating the ones before it.

To add an augmentation, add its field to `Config`, what it does to pixels to `pictures.transforms`,
and everything else here: a field of `Plan` for its random choices, which `plan_epoch` draws and
`augment` applies; its value in NO_AUGMENTATION; its words in `describe_augmentation`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.config import Config
from hundredfold.pictures.transforms import change_colors, crop_flip, mix_pairs, resized_crop
from hundredfold.support.device import memory_format


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator; each (seed, purpose) has an independent stream."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


NO_AUGMENTATION: Mapping[str, Any] = {
    "pad": 0,
    "crop_area": 1.0,
    "color_jitter": 0.0,
    "cutmix": 0.0,
    "flip": "none",
}
"""Values of the configuration that leave all augmentation out."""
MAX_RATIO = 4 / 3
"""Largest ratio of the sides of a random resized crop."""


@dataclass(frozen=True)
class Plan:
    """The random choices of one epoch of N pictures, or of a part of it.

    Each tensor has N rows, in the order in which the pictures are shown.
    """

    classes: int
    """Number of classes."""
    pad: int
    """Width of the reflected border in pixels."""
    crop_side: int
    """Side of resized crops in pixels."""
    order: Tensor
    """(N,) int64, indices of the pictures: a permutation of 0..N-1, or N draws with replacement."""
    top: Tensor
    """(N,) int64, first row of the crop within the padded picture."""
    left: Tensor
    """(N,) int64, first column of the crop within the padded picture."""
    flip: Tensor
    """(N,) bool, whether the picture is flipped."""
    boxes: Tensor | None
    """(N, 4) float32, resized crops: x and y of the centre, width and height, where the picture
    extends from -1 to 1; None for no resized crops."""
    colors: Tensor | None
    """(N, 3) float32, factors of brightness, contrast and saturation; None to keep the colours."""
    pasted: Tensor | None
    """(N, 4) float32, boxes that another picture is pasted into: left, top, right and bottom edge,
    where the picture extends from 0 to 1; None for no mixing."""

    def __getitem__(self, places: slice | Tensor) -> "Plan":
        """Return the plan of some places in the order, such as those of a batch."""
        return self._map(lambda choices: choices[places])

    def to(self, device: torch.device) -> "Plan":
        """Return the plan on a device. It is drawn on the CPU, so it is the same everywhere."""
        return self._map(lambda choices: choices.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Plan":
        values = [getattr(self, field.name) for field in fields(self)]
        changed: list[Any] = [change(v) if isinstance(v, Tensor) else v for v in values]
        return Plan(*changed)


def plan_epoch(labels: Tensor, classes: int, side: int, epoch: int, config: Config) -> Plan:
    """Draw the random choices of one epoch.

    Alternating flips follow Jordan, "94% on CIFAR-10 in 3.29 Seconds", 2024, section 3.6: chance
    decides whether a picture is flipped in the first epoch; then it is flipped in every other
    epoch, so any two epochs in a row show both sides.

    Args:
        labels: (N,) int64, of the training pictures.
        classes: number of classes.
        side: side of the pictures in pixels.
        epoch: number of the epoch, from 0.
        config: the augmentation, the balancing and the seed.
    """
    rng, count = generator(config.seed, "epoch", epoch), len(labels)
    if config.balance == "sampling":
        chance = balanced_weights(labels).cpu()[labels.cpu()]
        order = torch.multinomial(chance, count, replacement=True, generator=rng)
    else:
        order = torch.randperm(count, generator=rng)
    pad = border(config, side)
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=rng)
    if config.flip == "none":
        flip = torch.zeros(count, dtype=torch.bool)
    elif config.flip == "random":
        flip = torch.rand(count, generator=rng) < 0.5
    else:
        first = torch.rand(count, generator=generator(config.seed, "first flip")) < 0.5
        flip = (first ^ (epoch % 2 == 1))[order]
    boxes = random_boxes(count, config.crop_area, rng) if config.crop_area < 1 else None
    colors = None
    if config.color_jitter:
        colors = 1 + config.color_jitter * (2 * torch.rand(count, 3, generator=rng) - 1)
    pasted = pasted_boxes(count, config.cutmix, rng) if config.cutmix else None
    crop_side = max(side, config.size)  # the model may enlarge pictures
    return Plan(classes, pad, crop_side, order, top, left, flip, boxes, colors, pasted)


def random_boxes(count: int, smallest: float, rng: torch.Generator) -> Tensor:
    """Draw the boxes of random resized crops.

    Szegedy et al., "Going Deeper with Convolutions", 2014, section 6.

    Args:
        count: number of boxes N.
        smallest: smallest share of the area (0..1); shares are uniform from there to 1.
        rng: random generator.

    Returns:
        (N, 4) float32, as `Plan.boxes`. The logarithm of the ratio of the sides is uniform up to
        MAX_RATIO. A box that would be wider or higher than the picture is cut to it.
    """
    area, ratio, x, y = torch.rand(4, count, generator=rng)
    area = smallest + (1 - smallest) * area
    ratio = MAX_RATIO ** (2 * ratio - 1)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return torch.stack([(2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height), width, height], 1)


def pasted_boxes(count: int, share: float, rng: torch.Generator) -> Tensor:
    """Draw the boxes that are pasted by CutMix.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", 2019, section 3.1.

    Args:
        count: number of boxes N.
        share: share of the pictures (0..1) with a box. The boxes of others are empty.
        rng: random generator.

    Returns:
        (N, 4) float32, as `Plan.pasted`. The area is uniform in 0..1, and the centre in the
        picture. What exceeds the picture is cut off.
    """
    area, x, y, chance = torch.rand(4, count, generator=rng)
    half = torch.where(chance < share, area.sqrt() / 2, 0.0)
    return torch.stack([x - half, y - half, x + half, y + half], 1).clamp(0, 1)


def augment(images: Tensor, labels: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Augment a batch.

    Args:
        images: (B, 3, H, W) uint8, in the order of the plan.
        labels: (B,) int64, in the same order.
        plan: the part of the epoch's plan for these pictures, on their device.

    Returns:
        Pictures (B, 3, H, W) uint8, (B, 3, S, S) with resized crops, and labels: (B,) int64, or
        (B, C) float32 probabilities if pictures are mixed.
    """
    if plan.boxes is None:
        images = crop_flip(images, plan.top, plan.left, plan.flip, plan.pad)
    else:
        images = resized_crop(images, plan.boxes, plan.flip, plan.crop_side)
    if plan.colors is not None:
        images = change_colors(images, plan.colors)
    if plan.pasted is not None:
        return mix_pairs(images, labels, plan.pasted, plan.classes)
    return images, labels


def describe_augmentation(config: Config, side: int) -> str:
    """Return what the augmentation does to pictures of a side in pixels, as a phrase."""
    pad = border(config, side)
    crop = f"cropped after adding {pad} px of reflected border" if pad else "not cropped"
    if config.crop_area < 1:
        crop = f"cropped to {config.crop_area:.0%} to 100% of their area and resized"
    flips = {
        "none": "never flipped",
        "random": "flipped at random",
        "alternate": "flipped every other epoch",
    }
    colors = f", colours changed by up to {config.color_jitter:.0%}" if config.color_jitter else ""
    mixed = f", a box of another picture pasted into {config.cutmix:.0%}" if config.cutmix else ""
    return f"{crop}, {flips[config.flip]}{colors}{mixed}"


def border(config: Config, side: int) -> int:
    """Return the width of the reflected border in pixels: `config.pad` for a side of 32."""
    return round(config.pad * side / 32)


def balanced_weights(labels: Tensor, classes: int = 0) -> Tensor:
    """Return weights with which all classes that have pictures weigh the same in total.

    Args:
        labels: (N,) int64.
        classes: number of classes, needed if the last ones may have no pictures.

    Returns:
        (C,) float32. The mean weight over the pictures is 1; a class without pictures has 0.
    """
    counts = labels.bincount(minlength=classes)
    return torch.where(counts > 0, len(labels) / (counts > 0).sum() / counts, 0.0)


def channel_stats(parts: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel, for values scaled to 0..1.

    The result is exact: pixels are counted by value, not summed in floating point.

    Args:
        parts: parts of the pictures, (B, 3, H, W) uint8 each.
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
    """Turn pixels into network input: resize if a size is given, and normalise by channel.

    Args:
        images: (B, C, H, W) uint8.
        mean: (C,) floating point, mean of each channel for values scaled to 0..1.
        std: (C,) of the same type, standard deviation of each channel, above 0.
        size: side of the result in pixels (bilinear, antialiased); 0 to keep the size.

    Returns:
        (B, C, size, size) with the data type of the mean, in the device's `memory_format`.
    """
    x = images
    if size and x.shape[-2:] != (size, size):
        rows, columns = (resampling(side, size, mean.device, mean.dtype) for side in x.shape[-2:])
        x = ((x.to(mean.dtype) @ columns.T).transpose(2, 3) @ rows.T).transpose(2, 3)
    # One multiply-add per pixel computes (x / 255 - mean) / std.
    scale = (1 / (255 * std)).view(1, -1, 1, 1)
    shift = (mean / std).view(1, -1, 1, 1)
    return x.to(mean.dtype, memory_format=memory_format(x.device)) * scale - shift


@cache
def resampling(side: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (size, side) matrix that resizes a column of pixels with antialiasing.

    Resizing is linear. As two matrix products, it takes a third of the time of `F.interpolate`,
    which is applied to unit vectors here to make the matrix.
    """
    columns = torch.eye(side)[None, None]
    matrix = F.interpolate(columns, size=(size, side), mode="bilinear", antialias=True)[0, 0]
    return matrix.to(device, dtype)
