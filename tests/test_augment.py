"""The random choices of augmentation, the batches made by them, and the network's input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.pixels import noise, slow_crop_flip

from hundredfold import Config, Dataset
from hundredfold.augment import (
    augment,
    balanced_weights,
    border,
    channel_stats,
    describe_augmentation,
    generator,
    plan_epoch,
    prepare,
    random_boxes,
)
from hundredfold.pictures.transforms import change_colors, resized_crop
from hundredfold.support.errors import UserError
from hundredfold.training.batches import batches
from hundredfold.training.setup import count_steps, make_setup

CPU = torch.device("cpu")


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    labels = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    order = plan_epoch(labels, 10, 32, 0, Config(balance="sampling")).order
    shares = labels[order].bincount() / len(labels)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_balanced_weights_equal_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 3])
    want = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    got = balanced_weights(labels, 5)
    np.testing.assert_allclose(got[[0, 1, 3]], want, rtol=1e-6)
    assert got[[2, 4]].tolist() == [0, 0]
    assert balanced_weights(labels)[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("pad, side, want", [(2, 32, 2), (2, 64, 4), (4, 128, 16), (0, 64, 0)])
def test_the_border_grows_with_the_size_of_the_pictures(pad: int, side: int, want: int) -> None:
    assert border(Config(pad=pad), side) == want


@given(st.floats(0.01, 1), st.integers(0, 10**6))
def test_random_boxes_are_within_the_picture(smallest: float, seed: int) -> None:
    boxes = random_boxes(50, smallest, torch.Generator().manual_seed(seed)).double()
    x, y, width, height = boxes.unbind(1)
    for centre, half in ((x, width), (y, height)):
        assert (centre - half >= -1 - 1e-6).all() and (centre + half <= 1 + 1e-6).all()
    area, ratio = width * height, width / height
    assert (area <= 1 + 1e-6).all()
    assert (ratio <= 4 / 3 + 1e-5).all() and (ratio >= 3 / 4 - 1e-5).all()
    cut = (width > 1 - 1e-6) | (height > 1 - 1e-6)  # a box that is cut has less area
    assert (area[~cut] >= smallest - 1e-6).all()
    assert (area >= smallest * 3 / 4 - 1e-6).all()


def test_the_areas_of_random_boxes_are_uniform_and_their_centres_balanced() -> None:
    boxes = random_boxes(40_000, 0.2, torch.Generator().manual_seed(0))
    area = boxes[:, 2] * boxes[:, 3]
    # Boxes of up to 3/4 of the area are never cut.
    counts = torch.histc(area, bins=11, min=0.2, max=0.75) / 40_000
    torch.testing.assert_close(counts, torch.full((11,), 0.05 / 0.8), atol=0.006, rtol=0)
    assert boxes[:, :2].mean(0).abs().max() < 0.01
    logarithm = (boxes[:, 2] / boxes[:, 3]).log()
    assert logarithm.mean().abs() < 0.01


def test_a_plan_draws_boxes_and_colours_of_the_configuration() -> None:
    config = Config(crop_area=0.5, color_jitter=0.2, flip="random")
    plan = plan_epoch(torch.zeros(5000).long(), 1, 32, 0, config)
    assert plan.boxes is not None and plan.colors is not None
    assert plan.boxes.shape == (5000, 4) and plan.colors.shape == (5000, 3)
    low, high = plan.colors.aminmax(dim=0)
    torch.testing.assert_close(low, torch.full((3,), 0.8), atol=0.002, rtol=0)
    torch.testing.assert_close(high, torch.full((3,), 1.2), atol=0.002, rtol=0)
    images = noise(20, 32, 32)
    part = plan[:20]
    assert part.boxes is not None and part.colors is not None
    want = change_colors(resized_crop(images, part.boxes, part.flip, 32), part.colors)
    assert augment(images, torch.zeros(20).long(), part)[0].equal(want)
    plain = plan_epoch(torch.zeros(10).long(), 1, 32, 0, Config())
    assert plain.boxes is None and plain.colors is None and plain.pasted is None


def test_the_chosen_share_of_pictures_is_mixed() -> None:
    plan = plan_epoch(torch.zeros(20_000).long(), 1, 32, 0, Config(cutmix=0.4))
    assert plan.pasted is not None
    left, top, right, bottom = plan.pasted.unbind(1)
    chosen = (right > left) & (bottom > top)
    assert chosen.float().mean().item() == pytest.approx(0.4, abs=0.02)
    whole = (left > 0) & (top > 0) & (right < 1) & (bottom < 1)
    areas = ((right - left) * (bottom - top))[chosen & whole]
    assert 0 < areas.min() < 0.01 and areas.max() > 0.6
    # With area a, a share (1 - sqrt(a))^2 of the boxes fits: the mean area of those is 1/5.
    assert areas.mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("flip", ["none", "random", "alternate"])
def test_batches_show_each_planned_picture_once(flip: str, tiny: Dataset) -> None:
    config = Config(pad=4, flip=flip, batch_size=20, seed=3, validation=0)  # type: ignore[arg-type]
    plan = plan_epoch(tiny.train.labels, 6, 32, 1, config)
    got = list(batches(make_setup(config, tiny, CPU), 1))
    assert [len(labels) for _, labels in got] == [20, 20, 20, 20, 16]
    assert plan.order.sort().values.equal(torch.arange(96))
    images, labels = (torch.cat(part) for part in zip(*got, strict=True))
    assert labels.equal(tiny.train.labels[plan.order])
    for place in range(0, 96, 7):
        source = tiny.train.images[plan.order[place]].numpy()
        choices = int(plan.top[place]), int(plan.left[place]), bool(plan.flip[place]), 4
        np.testing.assert_array_equal(images[place], slow_crop_flip(source, *choices))


def test_alternating_flips_show_both_sides_in_any_two_epochs() -> None:
    config = Config(flip="alternate")
    flipped = []
    for epoch in range(4):
        plan = plan_epoch(torch.zeros(500), 10, 32, epoch, config)
        by_picture = torch.zeros(500, dtype=torch.bool)
        by_picture[plan.order] = plan.flip
        flipped.append(by_picture)
    assert 200 < int(flipped[0].sum()) < 300
    assert flipped[1].equal(~flipped[0])
    assert flipped[2].equal(flipped[0])
    assert flipped[3].equal(flipped[1])


def test_a_plan_depends_only_on_seed_and_epoch() -> None:
    first = plan_epoch(torch.zeros(100), 10, 32, 3, Config(seed=1))
    torch.rand(7)  # the global generator must have no influence
    assert plan_epoch(torch.zeros(100), 10, 32, 3, Config(seed=1)).order.equal(first.order)
    assert not plan_epoch(torch.zeros(100), 10, 32, 4, Config(seed=1)).order.equal(first.order)
    assert not plan_epoch(torch.zeros(100), 10, 32, 3, Config(seed=2)).order.equal(first.order)


def test_a_plans_parts_make_the_batches_of_the_whole() -> None:
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(50)
    plan = plan_epoch(labels, 10, 32, 0, Config(pad=3))
    images, labels = images[plan.order], labels[plan.order]
    whole, _ = augment(images, labels, plan)
    for places in (slice(0, 20), slice(21, 50, 2), torch.tensor([7, 3, 30])):
        part, part_labels = augment(images[places], labels[places], plan[places])
        assert part.equal(whole[places])
        assert part_labels.equal(plan.order[places])


def test_the_augmentation_is_described_in_words() -> None:
    assert describe_augmentation(Config(pad=2, flip="alternate"), 64) == (
        "cropped after adding 4 px of reflected border, flipped every other epoch"
    )
    assert describe_augmentation(Config(pad=0, flip="none"), 32) == "not cropped, never flipped"
    assert describe_augmentation(Config(crop_area=0.35, color_jitter=0.2, flip="random"), 224) == (
        "cropped to 35% to 100% of their area and resized, flipped at random, colours changed by "
        "up to 20%"
    )
    assert describe_augmentation(Config(pad=0, flip="none", cutmix=0.5), 32) == (
        "not cropped, never flipped, a box of another picture pasted into 50%"
    )


def test_crop_offsets_are_uniform_over_the_whole_border() -> None:
    plan = plan_epoch(torch.zeros(90_000), 10, 32, 0, Config(pad=4))
    for offsets in (plan.top, plan.left):
        counts = torch.bincount(offsets, minlength=9)
        assert len(counts) == 9
        assert (counts - 10_000).abs().max() < 500  # five standard deviations


@pytest.mark.parametrize(("pictures", "steps"), [(2, 1), (16, 1), (17, 1), (18, 2), (32, 2)])
def test_no_batch_is_a_single_picture(pictures: int, steps: int) -> None:
    assert count_steps(pictures, 16) == steps


def test_one_picture_cannot_be_trained_on() -> None:
    with pytest.raises(UserError, match="at least 2 pictures"):
        count_steps(1, 16)


def test_prepare_normalises_by_channel() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    want = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    got = prepare(images, mean, std)
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_prepare_resizes_as_torch_does() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    zero, one = torch.zeros(3), torch.ones(3)
    want = torch.nn.functional.interpolate(
        images / 255, (24, 24), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(prepare(images, zero, one, 24), want)
    assert prepare(images, zero, one, 32).shape[-1] == 32


def test_channel_stats_equal_numpys() -> None:
    images = torch.randint(0, 256, (7, 3, 9, 9), dtype=torch.uint8)
    mean, std = channel_stats(images.split(3))
    scaled = images.double().numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-12)


def test_cifar100_has_the_published_channel_statistics(cifar: Dataset) -> None:
    mean, std = channel_stats(cifar.train.parts())
    assert mean == pytest.approx((0.5071, 0.4865, 0.4409), abs=5e-4)
    assert std == pytest.approx((0.2673, 0.2564, 0.2762), abs=5e-4)


def test_generators_for_different_purposes_differ() -> None:
    draws = {tuple(torch.rand(3, generator=generator(*key)).tolist()) for key in KEYS}
    assert len(draws) == len(KEYS)


KEYS: list[tuple[int, str, int]] = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
