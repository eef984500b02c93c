"""What the tests of exploring share: pages read back, what is printed."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from hundredfold import Config, Dataset
from hundredfold.cli.explore import facts_table
from hundredfold.training.setup import Setup, make_setup

CPU = torch.device("cpu")
KINDS = ["samples", "augmentation", "means", "counts"]


def page(path: Path) -> np.ndarray:
    """Return a written page as (H, W, 3) uint8; it must be opaque."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[:, :, 3] == 255).all()
    return pixels[:, :, :3].copy()


def find(pixels: np.ndarray, picture: torch.Tensor, side: int) -> list[tuple[int, int]]:
    """Return (x, y) wherever a page has the picture, (3, S, S), each pixel enlarged to a square."""
    scale = side // picture.shape[-1]
    wanted = picture.numpy().transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    content, row, places = pixels.tobytes(), wanted[0].tobytes(), []
    start = content.find(row)
    while start >= 0:
        y, x = divmod(start // 3, pixels.shape[1])
        if start % 3 == 0 and np.array_equal(pixels[y : y + side, x : x + side], wanted):
            places.append((x, y))
        start = content.find(row, start + 1)
    return places


def make_setup_of(dataset: Dataset, config: Config) -> Setup:
    return make_setup(config, dataset.with_labels(config.labels), CPU)


def printed(dataset: Dataset) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(facts_table(dataset))
    return re.sub(r" +\n", "\n", capture.get())
