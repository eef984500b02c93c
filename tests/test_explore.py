"""Exploring data: numbers against slow loops, pictures as read back from the page."""

import html
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser
from support.exploring import (
    AUGMENTATION,
    COUNTS,
    MEANS,
    SAMPLES,
    captions,
    cards,
    equal,
    headings,
    make_setup_of,
    pictures,
    section,
)
from support.making import make_split

from hundredfold import Dataset, Split, fast, tutorial
from hundredfold.augment import plan_epoch, prepare
from hundredfold.cli.explore import not_shown, show_facts
from hundredfold.experiments.explore import (
    augmented,
    choose_classes,
    choose_pictures,
    class_counts,
    class_means,
    explore,
    to_pixels,
    training_split,
)
from hundredfold.figures.grid import draw_grid
from hundredfold.figures.style import to_png
from hundredfold.training.batches import batches


def with_classes(names: tuple[str, ...], count: int = 4) -> Dataset:
    """Return random pictures, `count` of each class, without superclasses."""
    classes = len(names)
    splits = make_split(count * classes, classes), make_split(classes, classes, seed=1)
    return Dataset("random", *splits, names)


def test_the_page_has_the_exact_pictures_of_each_class_under_its_superclass(tiny: Dataset) -> None:
    path = explore(tiny, fast(), "out/here")
    assert path == Path("out/here/explore.html")
    samples = section(path, SAMPLES)
    shown = cards(samples)
    assert [name for name, _ in shown] == list(tiny.classes)
    training = training_split(make_setup_of(tiny, fast()), tiny)
    chosen = choose_pictures(training, range(6))
    for (_, images), places in zip(shown, chosen, strict=True):
        assert equal(images, list(training[places].images)) and len(images) == 12
    order = re.findall("<h[34]>(.*?)</h[34]>", samples)
    assert order == ["low", "a", "b", "c", "high", "d", "e", "f"]


def test_the_page_shows_the_augmented_pictures_that_training_sees(tiny: Dataset) -> None:
    config = fast(batch_size=16, seed=5)
    shown = cards(section(explore(tiny, config, "out"), AUGMENTATION))
    assert [name for name, _ in shown] == list(tiny.classes)
    setup = make_setup_of(tiny, config)
    originals = [
        next(i for i, picture in enumerate(setup.train_split.images) if picture.equal(images[0]))
        for _, images in shown
    ]
    assert setup.train_split.labels[originals].tolist() == list(range(6))
    for epoch in range(6):
        order = plan_epoch(setup.train_split.labels, 6, config.pad, epoch, config).order.tolist()
        seen = torch.cat([batch for batch, _ in batches(setup, epoch)])
        for i, (_, images) in zip(originals, shown, strict=True):
            assert images[7 + epoch].equal(seen[order.index(i)])  # after 6 versions of 24 pixels


def test_augmented_sizes_are_as_pillow_resizes(tiny: Dataset) -> None:
    setup = make_setup_of(tiny, fast())
    chosen = torch.tensor([3, 70, 11])
    full, small = (augmented(setup, chosen, 4, size) for size in (32, 24))
    assert [len(versions) for versions in full + small] == [4] * 6
    for big, little in zip(chain(*full), chain(*small), strict=True):
        image = Image.fromarray(big.permute(1, 2, 0).numpy())
        wanted = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(little.permute(1, 2, 0).numpy() - wanted).max() <= 1
    shown = cards(section(explore(tiny, fast(), "out"), AUGMENTATION))
    places = torch.cat(
        [places[:1] for places in choose_pictures(training_split(setup, tiny), range(6))]
    )
    for (_, images), versions in zip(shown, augmented(setup, places, 6, 24), strict=True):
        assert equal(images[1:7], versions)


@pytest.mark.parametrize(
    ("balance", "batch_size", "flip"), [("sampling", 16, "alternate"), ("none", 33, "random")]
)
def test_versions_are_those_of_the_batches(balance: Any, batch_size: int, flip: Any) -> None:
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
        for batch, _ in batches(setup, epoch):
            for picture in batch:
                seen[int(picture[0, 0, 0])].append(picture)
    assert {len(versions) for versions in seen.values()} > {epochs}
    for i, versions in enumerate(augmented(setup, torch.arange(count), epochs, 16)):
        assert equal(versions, seen[i][:epochs]), i


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
        training = training_split(setup, tiny)
        assert len(training) == len(setup.train_split)
        for picture, label in zip(training.images, training.labels, strict=True):
            assert known[picture.numpy().tobytes()] == label
        for name, images in cards(section(explore(tiny, config, config.name), AUGMENTATION)):
            assert tiny.classes[known[images[0].numpy().tobytes()]] == name


def test_means_equal_a_loop_over_pictures(tiny: Dataset) -> None:
    config = fast(validation=0.0)
    shown = captions(section(explore(tiny, config, "out"), MEANS))
    assert [name for name, _ in shown] == list(tiny.classes)
    for label, (_, images) in enumerate(shown):
        total = np.zeros((3, 32, 32))
        members = [i for i in range(96) if tiny.train.labels[i] == label]
        for i in members:
            total += tiny.train.images[i].numpy()
        mean = torch.from_numpy((total / len(members)).round().astype(np.uint8))
        assert equal(images, [mean])


def test_a_class_without_training_pictures_is_named(
    tiny: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    without = tiny.train[(tiny.train.labels != 2).nonzero()[:, 0]]
    dataset = Dataset("five", without, tiny.test, tiny.classes)
    assert class_means(without, [2]) == [None]
    path = explore(dataset, fast(), "out")
    assert cards(section(path, SAMPLES))[2] == ("c", [])
    assert captions(section(path, MEANS))[2] == ("c: no training picture", [])
    assert class_counts(dataset)["training"] == [16, 16, 0, 16, 16, 16]
    show_facts(dataset)
    text = capsys.readouterr().out
    assert re.search(r"classes +5 +6 *\n", text)
    assert re.search(r"per class: min / median / max +0 / 16 / 16 +4 / 4 / 4 *\n", text)
    assert not_shown(dataset) == [
        "Every class has 4 test pictures, so the page does not list them."
    ]


def test_counts_are_listed_from_most_to_fewest_where_they_differ(tiny: Dataset) -> None:
    assert headings(explore(tiny, fast(), "out")) == [SAMPLES, AUGMENTATION, MEANS]
    assert not_shown(tiny) == [
        "Every class has 16 training pictures and 4 test pictures, so the page does not list them."
    ]
    kept = torch.tensor([i for i in range(96) if i not in (0, 1, 7)])  # of a, b and again of b
    uneven = Dataset("uneven", tiny.train[kept], tiny.test[:23], tiny.classes)
    path = explore(uneven, fast(), "uneven")
    assert headings(path) == [SAMPLES, AUGMENTATION, MEANS, COUNTS]
    rows = re.findall(
        r"<tr><td>(.)</td><td>(\d+)<.*?width: ([\d.]+)%.*?<td>(\d+)<", section(path, COUNTS)
    )
    assert [(name, int(train), int(test)) for name, train, _, test in rows] == [
        ("c", 16, 4),
        ("d", 16, 4),
        ("e", 16, 4),
        ("f", 16, 3),
        ("a", 15, 4),
        ("b", 14, 4),
    ]
    assert [float(width) for *_, width, _ in rows] == [100, 100, 100, 100, 93.75, 87.5]
    assert not_shown(uneven) == []


@pytest.mark.parametrize("count", [2, 30])
def test_two_classes(count: int) -> None:
    dataset = with_classes(("yes", "no"), count)
    path = explore(dataset, fast(), "out")
    samples = cards(section(path, SAMPLES))
    assert [len(images) for _, images in samples] == 2 * [min(count, 12)]
    assert len(cards(section(path, AUGMENTATION))) == 2 * min(count, 5)
    assert len(captions(section(path, MEANS))) == 2


def test_of_a_thousand_classes_a_hundred_are_shown_from_every_superclass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = tuple(f"n{i:08d}" for i in range(1000))
    plain = with_classes(names, 2)
    parents = tuple(i % 20 for i in range(1000))
    coarse = Dataset(
        "m", plain.train, plain.test, names, tuple(f"s{i}" for i in range(20)), parents
    )
    assert choose_classes(plain) == list(range(0, 1000, 10))
    shown = choose_classes(coarse)
    assert [parents[i] for i in shown] == [i for i in range(20) for _ in range(5)]
    sentence = "The page shows 100 of the 1,000 classes, spread evenly."
    assert not_shown(coarse)[0] == sentence
    show_facts(coarse)
    text = capsys.readouterr().out
    assert re.search(r"classes +1,000 +1,000 *\n superclasses +20 +20 *\n", text)
    for dataset in (plain, coarse):
        path = explore(dataset, fast(), "out")
        assert "shows 100 of the classes, spread evenly." in path.read_text()
        samples = cards(section(path, SAMPLES))
        assert [name for name, _ in samples] == [names[i] for i in choose_classes(dataset)]
        assert len(captions(section(path, MEANS))) == 100
    rest = Dataset("rest", plain.train[:1500], plain.test, names)
    counts = section(explore(rest, fast(), "rest"), COUNTS)
    assert len(re.findall("<tr><td>", counts)) == 1000


NAMES = (
    "a name as ImageNet has them, of several synonyms, one after the other",
    "W" * 300,
    "Кириллическое_название_класса",
    "Ελληνικό όνομα",
    "とても長い日本語のクラスの名前です",
    "العربية",
    "$x_1$ and $y",
    "<b>&amp; <script>alert(1)</script>",
    "two\nlines",
    "",
    "short",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_names_of_any_length_and_script(browser: Browser, scheme: Any) -> None:
    plain = with_classes(NAMES)
    superclasses = ("W" * 300, "two\nlines")
    dataset = Dataset(
        "W" * 300,
        plain.train[:40],
        plain.test[:10],
        NAMES,
        superclasses,
        tuple(i % 2 for i in range(len(NAMES))),
    )
    path = explore(dataset, fast(), "out")
    assert headings(path)[-1] == COUNTS
    content = path.read_text()
    assert "<script>" not in content and "<b>" not in content
    for name in NAMES:
        assert html.escape(name.replace("\n", r"\n")) in content
    size = {"width": 400, "height": 800}
    page = browser.new_context(offline=True, color_scheme=scheme, viewport=size).new_page()  # type: ignore[arg-type]
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    page.goto(path.resolve().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert (
        page.eval_on_selector_all("h1, h3, h4, .card, figure, figcaption, td, .scroll", wide) == 0
    )
    loaded = page.eval_on_selector_all("img", "all => all.map(i => i.complete && i.naturalWidth)")
    assert len(loaded) > 60 and set(loaded) == {24, 32}
    assert complaints == []


def test_large_pictures_are_shrunk() -> None:
    train, test = (
        replace(split, store=split.images.repeat_interleave(4, 2).repeat_interleave(4, 3))
        for split in (make_split(8, 2), make_split(2, 2, seed=1))
    )
    path = explore(Dataset("large", train, test, ("a", "b")), fast(size=128), "out")
    for heading in (SAMPLES, AUGMENTATION, MEANS):
        images = pictures(section(path, heading))
        assert images and {tuple(image.shape) for image in images} == {(3, 64, 64)}


def test_a_grid_shows_the_pictures_in_labelled_rows(tiny: Dataset) -> None:
    rows = [tiny.train.images[:3], tiny.train.images[3:5]]
    figure = draw_grid(rows, ["$x_1$", "名" * 40])
    shown = [
        [axes.images[0].get_array() for axes in figure.axes[i : i + 3] if axes.images]
        for i in (0, 3)
    ]
    for row, arrays in zip(rows, shown, strict=True):
        assert len(row) == len(arrays)
        for picture, array in zip(row, arrays, strict=True):
            assert np.array_equal(picture.permute(1, 2, 0).numpy(), np.asarray(array))
    assert [figure.axes[i].get_title(loc="left") for i in (0, 3)] == ["$x_1$", "名" * 29 + "…"]
    assert to_png(figure).startswith(b"\x89PNG")
