"""Crop, flip, recolour and mix the pictures of a batch, by random choices drawn beforehand."""

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R BT.601)."""


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad by reflection, crop back to size at (top, left), then flip horizontally.

    A single gather by index does all three: no padded copy is made, and each picture has its own
    window.

    Args:
        images: (B, C, H, W), any type; H and W larger than pad.
        top: (B,) int64, 0..2*pad.
        left: (B,) int64, 0..2*pad.
        flip: (B,) bool, which pictures to flip.
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
    """Mirror positions outside 0..size-1 back inside, without repeating the edge pixel."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor, side: int) -> Tensor:
    """Cut a box out of each picture, resize it, then flip it.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) as `Plan.boxes`.
        flip: (B,) bool, which pictures to flip.
        side: side S of the result in pixels.

    Returns:
        (B, C, S, S) uint8 (bilinear).
    """
    x, y, width, height = boxes.unbind(1)
    zero = torch.zeros_like(x)
    across = torch.stack([torch.where(flip, -width, width), zero, x], 1)
    down = torch.stack([zero, height, y], 1)
    shape = [len(images), images.shape[1], side, side]
    grid = F.affine_grid(torch.stack([across, down], 1), shape, align_corners=False)
    resized = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return resized.round().to(torch.uint8)


def change_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation, as torchvision's ColorJitter does in this order.

    Args:
        images: (B, 3, H, W) uint8.
        factors: (B, 3) of brightness, contrast and saturation; 1 changes nothing.

    Returns:
        (B, 3, H, W) uint8.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    x = (images * brightness).clamp(0, 255)
    middle = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = (middle + (x - middle) * contrast).clamp(0, 255)
    grey = (x * luma).sum(1, keepdim=True)
    return (grey + (x - grey) * saturation).clamp(0, 255).round().to(torch.uint8)


def mix_pairs(images: Tensor, labels: Tensor, boxes: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Paste into each picture a box of the one beside it, at the same place (CutMix).

    The first and the second picture are a pair, the third and the fourth, and so on. A single last
    one stays as it is.

    Args:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64.
        boxes: (B, 4) as `Plan.pasted`.
        classes: number of classes C.

    Returns:
        Pictures (B, 3, H, W) uint8, and (B, C) float32 probabilities: the labels of both pictures
        of a pair by the share of the pixels that each has.
    """
    count, _, height, width = images.shape
    partner = (torch.arange(count, device=images.device) ^ 1).clamp(max=count - 1)
    sides = torch.tensor([width, height, width, height], device=images.device)
    left, top, right, bottom = (boxes * sides).round().long().unsqueeze(-1).unbind(1)
    across = torch.arange(width, device=images.device)
    down = torch.arange(height, device=images.device)
    columns, rows = (across >= left) & (across < right), (down >= top) & (down < bottom)
    inside = rows[:, :, None] & columns[:, None, :]
    share = inside.float().mean((1, 2))[:, None]
    own = F.one_hot(labels, classes).float()
    mixed = torch.where(inside[:, None], images[partner], images)
    return mixed, own + share * (own[partner] - own)
