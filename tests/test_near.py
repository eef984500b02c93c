"""Near duplicates are found by their pixels."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from support.pets import scene

from hundredfold.data.near import near_duplicates
from hundredfold.data.related import connected


def as_tensor(images: list[Image.Image], side: int = 64) -> torch.Tensor:
    def pixels(image: Image.Image) -> torch.Tensor:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)

    return torch.stack([pixels(image).view(side, side, 3).permute(2, 0, 1) for image in images])


def variants(image: Image.Image, folder: Path) -> list[Image.Image]:
    """Return a picture saved again, smaller, brighter, mirrored, and slightly cropped."""
    image.save(folder / "again.jpg", quality=40)
    side = image.width
    return [
        Image.open(folder / "again.jpg"),
        image.resize((side // 2, side // 2)),
        image.point(lambda value: value * 0.8 + 20),
        ImageOps.mirror(image),
        image.crop((2, 1, side - 1, side - 2)),
    ]


@pytest.mark.parametrize("side", [32, 64, 100])
def test_variants_of_a_picture_are_near_duplicates_and_other_pictures_are_not(
    side: int, tmp_path: Path
) -> None:
    images = [scene(seed) for seed in range(40)]
    for seed in range(3):
        images += variants(scene(seed), tmp_path)
    found = near_duplicates(as_tensor(images, side), torch.arange(len(images)))
    lowest = connected(len(images), found)
    original = [*range(40), *(seed for seed in range(3) for _ in range(5))]
    assert lowest == original


def test_pictures_without_structure_are_no_near_duplicates() -> None:
    plain = torch.full((4, 3, 48, 48), 200, dtype=torch.uint8)
    assert near_duplicates(plain, torch.arange(4)) == []
    assert near_duplicates(plain, torch.arange(0)) == []
    assert near_duplicates(plain, torch.arange(1)) == []
