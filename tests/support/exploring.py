"""Helpers for the tests of `explore`: read back what the page shows."""

import base64
import html
import io
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hundredfold import Config, Dataset
from hundredfold.training.setup import Setup, make_setup

CPU = torch.device("cpu")
SAMPLES, AUGMENTATION = "Training pictures", "Augmentation"
MEANS, COUNTS = "Mean training picture of each class", "Pictures per class"


def headings(page: Path) -> list[str]:
    """Return the headings of a page's sections."""
    return re.findall("<h2>(.*?)</h2>", page.read_text())


def section(page: Path, heading: str) -> str:
    """Return the HTML of the section under a heading."""
    return page.read_text().partition(f"<h2>{heading}</h2>")[2].partition("<h2>")[0]


def cards(content: str) -> list[tuple[str, list[Tensor]]]:
    """Return the title and the pictures, each (3, H, W) uint8, of every card."""
    parts = content.split("<h4>")[1:]
    return [(html.unescape(part.partition("</h4>")[0]), pictures(part)) for part in parts]


def captions(content: str) -> list[tuple[str, list[Tensor]]]:
    """Return the caption and the pictures of every figure."""
    return [
        (html.unescape(re.findall("<figcaption>(.*?)</figcaption>", part)[0]), pictures(part))
        for part in content.split("<figure>")[1:]
    ]


def pictures(content: str) -> list[Tensor]:
    """Return the pictures in some HTML, each (3, H, W) uint8."""
    found = []
    for data in re.findall('src="data:image/png;base64,([^"]+)"', content):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            found.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return found


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Return whether two lists have the same pictures in the same order."""
    return len(first) == len(second) and all(map(torch.equal, first, second))


def make_setup_of(dataset: Dataset, config: Config) -> Setup:
    return make_setup(config, dataset.with_labels(config.labels), CPU)
