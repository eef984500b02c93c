"""Compare what augmentation does to pixels with slow versions that treat one picture at a time."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pixels import noise, slow_crop_flip

from hundredfold.augment import generator, pasted_boxes, random_boxes
from hundredfold.pictures.transforms import change_colors, crop_flip, mix_pairs, resized_crop


@settings(max_examples=60)
@given(data=st.data(), pad=st.integers(0, 6), seed=st.integers(0, 99))
def test_crop_flip_equals_the_per_picture_version(data: st.DataObject, pad: int, seed: int) -> None:
    count, height, width = (data.draw(st.integers(low, 12)) for low in (1, 7, 7))
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), generator=rng, dtype=torch.uint8)
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=rng)
    flip = torch.rand(count, generator=rng) < 0.5
    result = crop_flip(images, top, left, flip, pad)
    for i in range(count):
        choices = int(top[i]), int(left[i]), bool(flip[i]), pad
        np.testing.assert_array_equal(result[i], slow_crop_flip(images[i].numpy(), *choices))


def slow_resized_crop(image: np.ndarray, box: list[float], flip: bool, side: int) -> np.ndarray:
    """Resize a box of one picture (C, H, W) by bilinear interpolation, pixel by pixel.

    The value of a pixel is that at its centre, which lies half a pixel from its edges.
    """
    _, height, width = image.shape
    x, y, wide, high = box
    left, top = (x - wide + 1) / 2 * width, (y - high + 1) / 2 * height
    result = np.zeros((len(image), side, side))
    for row in range(side):
        for column in range(side):
            v = np.clip(top + (row + 0.5) / side * high * height - 0.5, 0, height - 1)
            u = np.clip(left + (column + 0.5) / side * wide * width - 0.5, 0, width - 1)
            i, j = int(v), int(u)
            below, right = min(i + 1, height - 1), min(j + 1, width - 1)
            above = (1 - u + j) * image[:, i, j] + (u - j) * image[:, i, right]
            under = (1 - u + j) * image[:, below, j] + (u - j) * image[:, below, right]
            result[:, row, column] = (1 - v + i) * above + (v - i) * under
    return result[:, :, ::-1] if flip else result


@settings(max_examples=40)
@given(*[st.integers(4, 12)] * 3, st.floats(0.05, 1), st.integers(0, 99))
def test_resized_crop_equals_the_per_picture_version(
    height: int, width: int, side: int, smallest: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    images, boxes = noise(4, height, width, seed), random_boxes(4, smallest, rng)
    flip = torch.rand(4, generator=rng) < 0.5
    found = resized_crop(images, boxes, flip, side)
    assert found.dtype == torch.uint8 and found.shape == (4, 3, side, side)
    for i in range(4):
        image, box = images[i].numpy().astype(float), boxes[i].tolist()
        want = slow_resized_crop(image, box, bool(flip[i]), side)
        np.testing.assert_allclose(found[i].numpy(), want, atol=0.51)


def test_resized_crop_equals_torchvisions_where_boxes_have_whole_pixels() -> None:
    images = noise(3, 16, 24)
    for top, left, height, width in ((0, 0, 8, 12), (5, 7, 8, 12), (8, 12, 8, 12), (3, 2, 10, 20)):
        box = [2 * (left + width / 2) / 24 - 1, 2 * (top + height / 2) / 16 - 1]
        boxes = torch.tensor([*box, width / 24, height / 16]).expand(3, 4)
        found = resized_crop(images, boxes, torch.zeros(3, dtype=torch.bool), 20)
        crop = images[:, :, top : top + height, left : left + width]
        want = TF.resize(crop, [20, 20], antialias=False)
        # Beyond the edge of the box, torchvision repeats it, and here the picture goes on.
        inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
        difference = (found[inner].int() - want[inner].int()).abs()
        assert difference.max() <= 1


@given(st.integers(4, 40), st.integers(0, 99))
def test_the_box_of_the_whole_picture_changes_nothing(side: int, seed: int) -> None:
    images = noise(4, side, side, seed)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4)
    flip = torch.tensor([False, True, False, True])
    found = resized_crop(images, whole, flip, side)
    assert found[::2].equal(images[::2])
    assert found[1::2].equal(images[1::2].flip(3))


@given(st.lists(st.floats(0.3, 1.7), min_size=3, max_size=3), st.integers(0, 99))
def test_colours_change_as_torchvision_changes_them(factors: list[float], seed: int) -> None:
    image = noise(1, 9, 9, seed)
    found = change_colors(image, torch.tensor([factors]))
    want = image / 255
    want = TF.adjust_brightness(want, factors[0])
    want = TF.adjust_contrast(want, factors[1])
    want = TF.adjust_saturation(want, factors[2])
    # torchvision's weights of the colours in a grey level have one digit less, and sum to 0.9999.
    assert (found.float() - want * 255).abs().max() <= 1.0


def test_colours_are_those_of_each_pictures_own_factors() -> None:
    images = noise(3, 8, 8)
    factors = torch.tensor([[1.2, 0.8, 1.1], [1.0, 1.0, 1.0], [0.7, 1.3, 0.5]])
    found = change_colors(images, factors)
    assert found[1].equal(images[1])
    for i in range(3):
        assert change_colors(images[i : i + 1], factors[i : i + 1])[0].equal(found[i])
    grey = change_colors(images, torch.tensor([[1.0, 1.0, 0.0]]).expand(3, 3))
    assert grey[:, 0].equal(grey[:, 1]) and grey[:, 1].equal(grey[:, 2])
    assert (change_colors(images, torch.tensor([[0.0, 1.0, 1.0]]).expand(3, 3)) == 0).all()


@given(seed=st.integers(0, 99), count=st.integers(1, 5))
def test_mixed_pairs_equal_the_per_picture_version(seed: int, count: int) -> None:
    rng = generator(seed, "mixing")
    images, labels = noise(count, 12, 10), torch.randint(0, 4, (count,), generator=rng)
    boxes = pasted_boxes(count, 0.7, rng)
    mixed, probabilities = mix_pairs(images, labels, boxes, 4)
    for i in range(count):
        j = i + 1 if i % 2 == 0 else i - 1
        j = i if j == count else j
        left, right = (round(float(edge) * 10) for edge in boxes[i, 0::2])
        top, bottom = (round(float(edge) * 12) for edge in boxes[i, 1::2])
        want, shares = images[i].clone(), [0.0] * 4
        want[:, top:bottom, left:right] = images[j, :, top:bottom, left:right]
        assert mixed[i].equal(want)
        pasted = (bottom - top) * (right - left) / 120
        shares[labels[i]] += 1 - pasted
        shares[labels[j]] += pasted
        assert probabilities[i].tolist() == pytest.approx(shares, abs=1e-6)
