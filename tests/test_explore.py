"""Looking at data: numbers by slow loops, pictures by reading the files back."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from support.exploring import KINDS, find, make_setup_of, page, printed
from support.making import make_split

from hundredfold import Dataset, Split, fast, tutorial
from hundredfold.augment import plan_epoch, prepare
from hundredfold.cli.explore import not_shown
from hundredfold.experiments.explore import (
    augmented,
    choose_classes,
    choose_pictures,
    class_counts,
    class_means,
    explore,
    to_pixels,
    trained_on,
)
from hundredfold.figures.data import draw_counts
from hundredfold.figures.style import to_png
from hundredfold.training.batches import batches

GREEN = 0, 255, 1


def with_classes(names: tuple[str, ...], count: int = 4) -> Dataset:
    """Return random pictures, `count` of each class, without superclasses."""
    classes = len(names)
    splits = make_split(count * classes, classes), make_split(classes, classes, seed=1)
    return Dataset("random", *splits, names)


def test_the_sample_page_has_the_very_pixels_a_row_a_class(tiny: Dataset) -> None:
    paths = explore(tiny, fast(), "out/here")
    assert [str(p) for p in paths] == [f"out/here/{n}.png" for n in KINDS[:3]]
    pixels = page(paths[0])
    assert (pixels[0] == 255).all()
    rows: dict[int, set[int]] = {}
    for picture, label in zip(tiny.train.images, tiny.train.labels, strict=True):
        for x, y in find(pixels, picture, 64):
            rows.setdefault(y, set()).add(int(label))
            pixels[y : y + 64, x : x + 64] = GREEN  # found: not to be taken for another
    assert [rows[y] for y in sorted(rows)] == [{label} for label in range(6)]
    assert (pixels == GREEN).all(2).sum() == 6 * 12 * 64 * 64
    top = np.diff(sorted(rows))
    assert set(top) == {66, top[2]}
    assert top[2] > 66  # between d and e the second superclass is named


def test_the_augmented_page_is_what_training_sees(tiny: Dataset) -> None:
    config = fast(batch_size=16, seed=5)
    pixels = page(explore(tiny, config, "out")[1])
    setup = make_setup_of(tiny, config)
    left = [find(pixels, picture, 96) for picture in setup.train_split.images]
    shown = {i: min(found) for i, found in enumerate(left) if found}
    assert sorted(int(setup.train_split.labels[i]) for i in shown) == list(range(6))
    last = dict(shown)
    for epoch in range(6):
        order = plan_epoch(setup.train_split.labels, 32, epoch, config).order.tolist()
        images = torch.cat(
            [batch for batch, _ in batches(setup.train_split, epoch, config, setup.device)]
        )
        for i, (_, row) in shown.items():
            found = [x for x, y in find(pixels, images[order.index(i)], 96) if y == row]
            later = [x for x in found if x > last[i][0]]
            assert later, f"epoch {epoch} of picture {i} is not to the right of the one before"
            last[i] = min(later), row


def test_augmented_sizes_are_as_pillow_resizes(tiny: Dataset) -> None:
    setup = make_setup_of(tiny, fast())
    chosen = torch.tensor([3, 70, 11])
    full, small = (augmented(setup, chosen, 4, size) for size in (32, 24))
    assert full.shape == (3, 4, 3, 32, 32)
    assert small.shape == (3, 4, 3, 24, 24)
    for big, little in zip(full.flatten(0, 1), small.flatten(0, 1), strict=True):
        image = Image.fromarray(big.permute(1, 2, 0).numpy())
        wanted = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(little.permute(1, 2, 0).numpy() - wanted).max() <= 1
    pixels = page(explore(tiny, fast(), "out")[1])
    places = torch.cat(
        [places[:1] for places in choose_pictures(trained_on(setup, tiny), range(6))]
    )
    for version in augmented(setup, places, 6, 24).flatten(0, 1):
        assert find(pixels, version, 96)


@pytest.mark.parametrize(
    ("balance", "batch_size", "flip"), [("sampling", 16, "alternate"), ("none", 33, "random")]
)
def test_turns_are_those_of_the_batches(balance: Any, batch_size: int, flip: Any) -> None:
    count, epochs = 100, 4  # in batches of 33 one picture of each epoch is left out
    ramp = torch.arange(16, dtype=torch.uint8).expand(count, 16, 16)
    number = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 16, 16)
    images = torch.stack([number, ramp, ramp.transpose(1, 2)], 1)  # red says which picture it is
    labels = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)
    config = fast(balance=balance, batch_size=batch_size, flip=flip, validation=0.0, sizes=())
    split = Split(images, labels)
    setup = make_setup_of(Dataset("numbers", split, split, ("a", "b", "c")), config)
    seen: dict[int, list[torch.Tensor]] = {i: [] for i in range(count)}
    for epoch in range(epochs):
        for batch, _ in batches(setup.train_split, epoch, config, setup.device):
            for picture in batch:
                seen[int(picture[0, 0, 0])].append(picture)
    assert {len(turns) for turns in seen.values()} > {epochs}
    for i, versions in enumerate(augmented(setup, torch.arange(count), epochs, 16)):
        turns = seen[i][:epochs]
        white = [torch.full_like(images[0], 255)] * (epochs - len(turns))
        assert versions.equal(torch.stack(turns + white)), i


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    side=st.integers(16, 40),
    mean=st.floats(0, 1),
    std=st.floats(0.01, 1),
)
def test_values_come_back_from_the_network_input_unclipped(
    seed: int, side: int, mean: float, std: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    images = 255 * torch.randint(0, 2, (2, 3, 32, 32), generator=rng, dtype=torch.uint8)
    images[1] = torch.randint(0, 256, (3, 32, 32), generator=rng).to(torch.uint8)
    channels = torch.tensor([mean, 0.5, 1 - mean]), torch.tensor([std, 0.25, std])
    assert to_pixels(prepare(images, *channels), *channels).equal(images)
    x = prepare(images, *channels, side).double()
    values = 255 * (x * channels[1].view(3, 1, 1) + channels[0].view(3, 1, 1))
    assert values.min() > -0.01  # far from where rounding would wrap around
    assert values.max() < 255.01
    pixels = to_pixels(prepare(images, *channels, side), *channels)
    assert (pixels - values).abs().max() < 0.51


def test_labels_are_the_datasets_though_the_recipe_learns_superclasses(tiny: Dataset) -> None:
    known = {
        p.numpy().tobytes(): int(n)
        for p, n in zip(tiny.train.images, tiny.train.labels, strict=True)
    }
    assert len(known) == 96
    for config in (fast(validation=0.25), tutorial(), fast(labels="coarse", validation=0.25)):
        setup = make_setup_of(tiny, config)
        training = trained_on(setup, tiny)
        assert len(training) == len(setup.train_split)
        for picture, label in zip(training.images, training.labels, strict=True):
            assert known[picture.numpy().tobytes()] == label
        explore(tiny, config, config.name)
        assert page(Path(config.name) / "augmentation.png").shape[1] < 2400


def test_means_equal_a_loop_over_pictures(tiny: Dataset) -> None:
    pixels = page(explore(tiny, fast(), "out")[2])
    places = []
    for label in range(6):
        total = np.zeros((3, 32, 32))
        members = [i for i in range(96) if tiny.train.labels[i] == label]
        for i in members:
            total += tiny.train.images[i].numpy()
        mean = torch.from_numpy((total / len(members)).round().astype(np.uint8))
        places += find(pixels, mean, 96)
    assert len(places) == 6
    assert [(x, y) for y, x in sorted((y, x) for x, y in places)] == places


def test_a_class_without_pictures_is_named_and_left_white(tiny: Dataset) -> None:
    without = tiny.train[(tiny.train.labels != 2).nonzero()[:, 0]]
    dataset = Dataset("five", without, tiny.test, tiny.classes)
    assert class_means(without, [1, 2])[1].eq(255).all()
    paths = explore(dataset, fast(), "out")
    assert [path.stem for path in paths] == KINDS
    assert class_counts(dataset)["training"] == [16, 16, 0, 16, 16, 16]
    text = printed(dataset)
    assert re.search(r"classes +5 +6\n", text)
    assert re.search(r"a class: min / median / max +0 / 16 / 16 +4 / 4 / 4\n", text)
    assert not_shown(dataset) == ["Every class has 4 test pictures: no chart shows that."]


def widths(axes: Axes) -> list[float]:
    return [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]


def test_counts_are_drawn_from_most_to_fewest() -> None:
    names = ("few", "$most_", "名" * 40)
    figure = draw_counts({"training": [2, 30, 7], "test": [5, 1, 9]}, names)
    training, test = figure.axes
    assert widths(training) == [30, 7, 2]
    assert widths(test) == [1, 9, 5]
    assert [tick.get_text() for tick in training.get_yticklabels()] == [
        "$most_",
        "名" * 29 + "…",
        "few",
    ]
    assert training.get_title(loc="left") == "39 training pictures"
    assert to_png(figure).startswith(b"\x89PNG")


def test_only_counts_that_differ_are_drawn(tiny: Dataset) -> None:
    assert [path.stem for path in explore(tiny, fast(), "out")] == KINDS[:3]
    assert not_shown(tiny) == [
        "Every class has 16 training pictures and 4 test pictures: no chart shows that."
    ]
    uneven = Dataset("uneven", tiny.train[:95], tiny.test[:23], tiny.classes)
    assert [path.stem for path in explore(uneven, fast(), "uneven")] == KINDS
    assert not_shown(uneven) == []


@pytest.mark.parametrize("count", [2, 30])
def test_two_classes(count: int) -> None:
    dataset = with_classes(("yes", "no"), count)
    samples, augmentation, means = (page(path) for path in explore(dataset, fast(), "out"))
    found = [find(samples, picture, 64) for picture in dataset.train.images]
    assert sum(map(len, found)) == 2 * min(count, 12)
    assert samples.shape[0] < 400
    setup = make_setup_of(dataset, fast())
    originals = [find(augmentation, picture, 96) for picture in setup.train_split.images]
    assert sum(map(bool, originals)) == 2 * min(count, 5)
    assert means.shape[1] < 700


def test_of_a_thousand_classes_a_hundred_are_shown_from_every_superclass() -> None:
    names = tuple(f"n{i:08d}" for i in range(1000))
    plain = with_classes(names, 2)
    parents = tuple(i % 20 for i in range(1000))
    coarse = Dataset(
        "m", plain.train, plain.test, names, tuple(f"s{i}" for i in range(20)), parents
    )
    assert choose_classes(plain) == list(range(0, 1000, 10))
    shown = choose_classes(coarse)
    assert [parents[i] for i in shown] == [i for i in range(20) for _ in range(5)]
    assert not_shown(coarse)[0] == (
        "Samples and means show 100 of the 1,000 classes, spread evenly; "
        "the other 900 are in the counts alone."
    )
    assert re.search(r"classes +1,000 +1,000\n superclasses +20 +20\n", printed(coarse))
    for dataset in (plain, coarse):
        samples, _, means = explore(dataset, fast(), "out")
        for path in (samples, means):
            assert max(page(path).shape) <= 2410
        pixels = page(samples)
        for label in choose_classes(dataset)[::33]:
            member = int((dataset.train.labels == label).nonzero()[0])
            assert find(pixels, dataset.train.images[member], 64)
    rest = Dataset("rest", plain.train[:1500], plain.test, names)
    figure = draw_counts(class_counts(rest), names)
    assert figure.axes[0].get_xlabel() == "1,000 classes, from n00000000 to n00000999"
    assert [path.stem for path in explore(rest, fast(), "rest")] == KINDS


LONG = (
    "a name as ImageNet has them, of several synonyms, one after the other",
    "W" * 300,
    "Кириллическое_название_класса",
    "Ελληνικό όνομα",
    "とても長い日本語のクラスの名前です",
    "العربية",
    "$x_1$ and $y",
    "two\nlines",
    "",
    "short",
)


def test_names_of_any_length_and_script_keep_clear_of_the_pictures() -> None:
    dataset = with_classes(LONG)
    samples, augmentation, means = (page(path) for path in explore(dataset, fast(), "out"))
    for pixels, side in ((samples, 64), (augmentation, 96)):
        places = [place for p in dataset.train.images for place in find(pixels, p, side)]
        first, top = min(x for x, _ in places), min(y for _, y in places)
        assert (pixels[top:, first - 8 : first] == 255).all()
    for label, mean in enumerate(class_means(dataset.train, range(10))):
        ((x, y),) = find(means, mean, 96)
        below = means[y + 97 : y + 142, x : x + 108]
        assert (below < 128).any() == bool(LONG[label])
        assert (means[y + 142 : y + 146, x : x + 108] == 255).all()
