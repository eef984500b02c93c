"""Random pictures, and a slow version of the usual augmentation."""

import numpy as np
import torch


def noise(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=rng, dtype=torch.uint8)


def slow_crop_flip(image: np.ndarray, top: int, left: int, flip: bool, pad: int) -> np.ndarray:
    """Pad, crop and flip one picture (C, H, W) with numpy."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    crop = padded[:, top : top + height, left : left + width]
    return crop[:, :, ::-1] if flip else crop
