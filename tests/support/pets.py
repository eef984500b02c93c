"""Make folders of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(1)
"""Source of the pixels. Each test starts it anew."""
START = RNG.bit_generator.state


def picture(path: Path, side: int = 32) -> Path:
    """Write a picture of random pixels in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def pictures(root: Path, counts: dict[str, int]) -> Path:
    """Write the given number of pictures into each folder below a root."""
    for folder, count in counts.items():
        for i in range(count):
            picture(root / folder / f"{folder.replace('/', '-').strip('.')}-{i}.png")
    return root


def scene(seed: int, side: int = 96) -> Image.Image:
    """Return a picture of large random patches of colour that depends on the seed."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)
