"""Pages of pictures with names to them, laid out in whole pixels from the upper left corner.

Each pixel of a picture is enlarged to a square of its own: nothing is interpolated on the way to
the file.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from hundredfold.figures.style import GREY, glyphs_may_lack
from hundredfold.pictures.prepare import to_image

DPI = 150
"""That of `to_png`: a page's pixels are the file's."""
SIDE = 2400
"""Pixels that a page should not be much wider than."""
MARGIN, TITLE, HEADING, SPACE, GUTTER = 36, 64, 36, 22, 30
"""Pixels around a page, of its title and of a block's, below a block, between columns."""
LABEL = 160
"""Pixels of a name at the left of its pictures."""


class Place(NamedTuple):
    """A point of a page, in pixels from its upper left corner."""

    x: int
    y: int


class Layout(NamedTuple):
    """A page's size, in pixels, and where its items and its blocks with their headings begin."""

    width: int
    height: int
    block: int
    """Width of a block."""
    items: list[Place]
    headings: list[tuple[Place, str]]


def lay_out(groups: Sequence[str], across: int, size: tuple[int, int]) -> Layout:
    """Place items in blocks, one a run of equal groups, and the blocks in columns of like height.

    Args:
        groups: (N,) name of each item's group, which is its block's heading.
        across: items side by side in a block.
        size: an item's width and height in pixels.
    """
    width, height = size
    heading = HEADING if any(groups) else 0
    wide = across * width + GUTTER
    runs = [(name, len(list(run))) for name, run in groupby(groups)]
    lines = sum(math.ceil(count / across) for _, count in runs)
    total = lines * height + len(runs) * (heading + SPACE)
    # Twice as wide as it is high, as far as the widest page allows.
    columns = max(1, min(round(math.sqrt(2 * total / wide)), SIDE // wide))
    blocks = _split(runs, across, math.ceil(lines / columns))
    heights = [heading + math.ceil(count / across) * height + SPACE for _, count in blocks]
    limit = max(*heights, total // columns)
    while (places := _pack(heights, limit))[-1][0] >= columns:
        limit += height
    items, headings = [], []
    for (column, top), (name, count) in zip(places, blocks, strict=True):
        start = Place(MARGIN + column * wide, MARGIN + TITLE + top)
        headings.append((start, name))
        for i in range(count):
            down = heading + i // across * height
            items.append(Place(start.x + i % across * width, start.y + down))
    page_width = 2 * MARGIN + (places[-1][0] + 1) * wide - GUTTER
    lowest = max(top + tall for (_, top), tall in zip(places, heights, strict=True))
    page_height = 2 * MARGIN + TITLE + lowest - SPACE
    return Layout(page_width, page_height, across * width, items, headings)


def _split(runs: list[tuple[str, int]], across: int, lines: int) -> list[tuple[str, int]]:
    """Cut runs of more than so many lines into like parts: no block outgrows a column."""
    blocks = []
    for name, count in runs:
        whole = math.ceil(count / across)
        part = across * math.ceil(whole / math.ceil(whole / lines))
        blocks += [(name, min(part, count - done)) for done in range(0, count, part)]
    return blocks


def _pack(heights: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Return (column, top) of each block: a column is filled up to the limit, then the next."""
    places, column, top = [], 0, 0
    for height in heights:
        if top and top + height > limit:
            column, top = column + 1, 0
        places.append((column, top))
        top += height
    return places


def blank_page(layout: Layout, title: str, note: str) -> Figure:
    """Return a white page with its title, the note beside it, and the headings of its blocks."""
    width = max(layout.width, 640)  # so that a title has room above a few pictures
    figure = Figure(figsize=(width / DPI, layout.height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)  # keeps what measures text; else each word would have one of its own
    at = Place(MARGIN, MARGIN + 22)
    used = write(figure, at, [title], size=12, weight="bold")
    write(figure, Place(at.x + used + 20, at.y), [note], size=9, color=GREY)
    for at, name in layout.headings:
        lines = broken(figure, name, (layout.block, 1), size=10, weight="bold")
        write(figure, Place(at.x, at.y + 22), lines, size=10, weight="bold")
    return figure


def put(figure: Figure, at: Place, picture: Tensor, side: int) -> None:
    """Put a picture, (3, H, W) uint8, into a square: enlarged by a whole factor, or shrunk."""
    image = to_image(picture)
    factor = side // max(image.size)
    if factor:
        size = image.width * factor, image.height * factor
        image = image.resize(size, Image.Resampling.NEAREST)
    else:
        image.thumbnail((side, side))
    top = round(figure.get_figheight() * DPI) - at.y - (side + image.height) // 2
    figure.figimage(np.asarray(image), at.x + (side - image.width) // 2, top)


def put_label(figure: Figure, at: Place, name: str) -> None:
    """Write a name in up to three lines in the `LABEL` pixels right of a point, centred upright."""
    lines = broken(figure, name, (LABEL - 12, 3), size=9)
    rise = 11 * (len(lines) - 1)  # half the distance between two baselines, each
    write(figure, Place(at.x, at.y + 7 - rise), lines, size=9)


def write(figure: Figure, at: Place, lines: Sequence[str], size: int, **style: Any) -> int:
    """Write lines one below the other; return their width in pixels.

    Each is a text of its own: what letters a name has must not move it up or down.

    Args:
        figure: where.
        at: the left end of the first line's baseline.
        lines: as they are.
        size: in points.
        style: weight and colour, as matplotlib has them.
    """
    width, height = figure.get_size_inches() * DPI
    step = 1.18 * size * DPI / 72
    used = 0
    for i, line in enumerate(lines):
        place = at.x / width, 1 - (at.y + i * step) / height
        words = figure.text(*place, line, fontsize=size, **style)
        used = max(used, _measured(words))
    return used


def broken(figure: Figure, text: str, room: tuple[int, int], size: int, **style: Any) -> list[str]:
    """Break text into lines, and cut what is too long with an ellipsis.

    Args:
        figure: where it is going to be written.
        text: in one line.
        room: the most pixels of a line, and the most lines.
        size: in points.
        style: as in `write`.
    """
    width, most = room
    words = figure.text(0, 0, "", fontsize=size, **style)
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest:
        end = "…" if len(lines) == most - 1 else ""
        length = _fitting(words, rest, width, end)
        if length < len(rest) and not end:  # after the last space or the like, if there is any
            length = 1 + max(rest.rfind(mark, 0, length) for mark in " _-,") or length
        lines.append(rest[:length] + (end if length < len(rest) else ""))
        rest = "" if end else rest[length:].strip()
    words.remove()
    return lines


def _fitting(words: Text, text: str, width: int, end: str) -> int:
    """Return how many letters of a text have room: all, or at least one with the end after them."""

    def needed(length: int) -> int:
        words.set_text(text[:length] + (end if length < len(text) else ""))
        return _measured(words)

    if needed(len(text)) <= width:
        return len(text)
    return max(1, bisect_right(range(1, len(text)), width, key=needed))


def _measured(words: Text) -> int:
    with glyphs_may_lack():
        return math.ceil(words.get_window_extent().width)
