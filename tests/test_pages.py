"""Pages of pictures: where things go, and how names are broken."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hundredfold.figures.data import draw_means, draw_samples
from hundredfold.figures.pages import lay_out
from hundredfold.figures.style import to_png


def test_names_are_broken_where_a_reader_would() -> None:
    long = ("Кириллическое_название_класса", "$x_1$ and $y", "two\nlines", "W" * 300, "word " * 20)
    picture = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    figure = draw_samples([picture] * 5, long, [""] * 5)
    texts = [text.get_text() for text in figure.texts]
    for part in ("Кириллическое_", "название_", "класса", "two lines", "$x_1$ and $y"):
        assert part in "".join(texts)
    assert sum(text.endswith("…") for text in texts) == 2
    narrow = draw_means(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["aquarium_fish"], ["fish"])
    texts = [text.get_text() for text in narrow.texts]
    assert texts[-2:] == ["aquarium_", "fish"]
    assert texts[2] == "fish"


def test_large_pictures_are_shrunk_whole() -> None:
    red = torch.zeros(1, 3, 200, 100, dtype=torch.uint8)
    red[:, 0] = 255
    Path("red.png").write_bytes(to_png(draw_samples([red], ["red"], [""])))
    with Image.open("red.png") as image:
        y, x = (np.asarray(image.convert("RGB")) == (255, 0, 0)).all(2).nonzero()
    assert (np.ptp(x) + 1, np.ptp(y) + 1, len(x)) == (32, 64, 32 * 64)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    across=st.integers(1, 5),
    named=st.booleans(),
)
def test_nothing_on_a_page_overlaps(counts: list[int], across: int, named: bool) -> None:
    groups = [f"g{i}" if named else "" for i, count in enumerate(counts) for _ in range(count)]
    width, height = 120, 70
    layout = lay_out(groups, across, (width, height))
    assert len(layout.items) == len(groups)
    taken = np.zeros((layout.height, layout.width), dtype=int)
    for x, y in layout.items:
        taken[y : y + height, x : x + width] += 1
    for (x, y), _ in layout.headings:
        taken[y : y + 30, x : x + layout.block] += named
    assert taken.max() == 1
    assert taken.sum() == len(groups) * width * height + named * len(layout.headings) * (
        30 * layout.block
    )
    assert layout.width <= 2400 + 72
    for (x, y), group in zip(layout.items, groups, strict=True):  # below its own group's name
        above = [(p.y, name) for p, name in layout.headings if p.x <= x < p.x + layout.block]
        assert max(h for h in above if h[0] <= y)[1] == group
