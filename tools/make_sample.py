"""Make the bundled sample from the official CIFAR-100: python tools/make_sample.py."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hundredfold import load_cifar100
from hundredfold.augment import generator
from hundredfold.data.dataset import Split

PER_CLASS = {"train": 25, "test": 5}
COLUMNS = 50
TARGET = Path(__file__).parent.parent / "src/hundredfold/data/sample"


def draw(split: Split, per_class: int, name: str) -> torch.Tensor:
    """Return the indices of `per_class` random pictures of each class, ordered by class."""
    order = torch.randperm(len(split), generator=generator(0, "sample", name))
    labels = split.labels[order]
    return torch.cat([order[labels == label][:per_class] for label in range(100)])


def mosaic(images: torch.Tensor) -> np.ndarray:
    """Return pictures (N, 3, 32, 32) as one picture (H, W, 3) with COLUMNS columns."""
    grid = images.view(-1, COLUMNS, 3, 32, 32).permute(0, 3, 1, 4, 2)
    return grid.reshape(len(images) // COLUMNS * 32, COLUMNS * 32, 3).numpy()


def main() -> None:
    """Write train.png, test.png and sample.json."""
    dataset = load_cifar100()
    TARGET.mkdir(exist_ok=True)
    names: dict[str, object] = {
        "classes": dataset.classes,
        "superclasses": dataset.superclasses,
        "parents": dataset.parents,
    }
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        index = draw(split, PER_CLASS[name], name)
        Image.fromarray(mosaic(split.images[index])).save(TARGET / f"{name}.png", optimize=True)
        names[f"{name}_per_class"] = PER_CLASS[name]
        names[f"{name}_index"] = index.tolist()
    (TARGET / "sample.json").write_text(json.dumps(names) + "\n")


if __name__ == "__main__":
    main()
