"""Load the bundled sample: 25 training and 5 test pictures of each CIFAR-100 class.

The pictures are in two lossless mosaics, row by row, sorted by class. `sample.json` has the class
names and the index of each picture in the official data. tools/make_sample.py writes these files.
"""

import json
from importlib import resources

import numpy as np
import torch
from PIL import Image

from hundredfold.data.dataset import Dataset, Split

SIDE = 32


def load_sample() -> Dataset:
    """Load the sample: 2,500 training and 500 test pictures, drawn evenly from the 100 classes.

    Examples:
        >>> len(load_sample().train)
        2500
    """
    folder = resources.files("hundredfold.data") / "sample"
    names = json.loads((folder / "sample.json").read_text())
    splits = {}
    for name in ("train", "test"):
        with (folder / f"{name}.png").open("rb") as file, Image.open(file) as mosaic:
            images = tiles(np.asarray(mosaic.convert("RGB")))
        labels = torch.arange(len(names["classes"])).repeat_interleave(names[f"{name}_per_class"])
        splits[name] = Split(images, labels)
    return Dataset(
        source="sample",
        train=splits["train"],
        test=splits["test"],
        classes=tuple(names["classes"]),
        superclasses=tuple(names["superclasses"]),
        parents=tuple(names["parents"]),
    )


def tiles(mosaic: np.ndarray) -> torch.Tensor:
    """Cut a mosaic (rows*32, columns*32, 3) into pictures (rows*columns, 3, 32, 32), uint8."""
    rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
    grid = torch.from_numpy(mosaic.copy()).view(rows, SIDE, columns, SIDE, 3)
    return grid.permute(0, 2, 4, 1, 3).reshape(rows * columns, 3, SIDE, SIDE).contiguous()
