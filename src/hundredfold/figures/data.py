"""Figures of the data itself: samples, augmented versions, mean pictures, counts."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hundredfold.figures.pages import (
    GUTTER,
    HEADING,
    LABEL,
    MARGIN,
    TITLE,
    Layout,
    Place,
    blank_page,
    broken,
    lay_out,
    put,
    put_label,
    write,
)
from hundredfold.figures.style import COLOURS, STYLE, shortened
from hundredfold.support.text import plural

SMALL, LARGE = 64, 96
"""Pixels of a picture's side on a page of many and of few."""


@rc_context(STYLE)
def draw_samples(
    pictures: Sequence[Tensor], names: Sequence[str], groups: Sequence[str], note: str = ""
) -> Figure:
    """Draw some pictures of each class, a row a class.

    Args:
        pictures: (C,) of (at most K, 3, H, W) uint8; classes may have fewer than others.
        names: (C,) of the classes.
        groups: (C,) of their superclasses, equal ones side by side; empty where there are none.
        note: what to say beside the title.
    """
    pitch = SMALL + 2
    across = LABEL + pitch * max(len(some) for some in pictures)
    layout = lay_out(groups, 1, (across, pitch))
    figure = blank_page(layout, "Training pictures", note)
    for (x, y), some, name in zip(layout.items, pictures, names, strict=True):
        put_label(figure, Place(x, y + SMALL // 2), name)
        for i, picture in enumerate(some):
            put(figure, Place(x + LABEL + i * pitch, y), picture, SMALL)
    return figure


@rc_context(STYLE)
def draw_means(
    means: Tensor, names: Sequence[str], groups: Sequence[str], note: str = ""
) -> Figure:
    """Draw the mean picture of each class, (C, 3, H, W) uint8; the rest is as in `draw_samples`."""
    width = LARGE + 16
    side_by_side = min(5, max(len(list(run)) for _, run in groupby(groups)))
    layout = lay_out(groups, side_by_side, (width, LARGE + 50))
    figure = blank_page(layout, "Mean training picture of each class", note)
    for (x, y), mean, name in zip(layout.items, means, names, strict=True):
        put(figure, Place(x, y), mean, LARGE)
        lines = broken(figure, name, (LARGE + 8, 2), size=7)
        write(figure, Place(x, y + LARGE + 19), lines, size=7)
    return figure


@rc_context(STYLE)
def draw_augmentation(
    originals: Tensor,
    versions: Mapping[int, Tensor],
    names: Sequence[str],
    title: str,
    note: str = "",
) -> Figure:
    """Draw pictures as they are, and to the right of each how training sees it.

    Args:
        originals: (P, 3, H, W) uint8.
        versions: side in pixels to (P, E, 3, side, side) uint8, one an epoch.
        names: (P,) of the pictures' classes.
        title: of the page.
        note: what to say beside the title.
    """
    pitch = LARGE + 4
    blocks = {"original": originals[:, None]}
    for side, some in versions.items():
        blocks[f"{side} px"] = some
    across = LABEL + sum(some.shape[1] * pitch + GUTTER for some in blocks.values()) - GUTTER
    top = MARGIN + TITLE + HEADING
    height = top + len(names) * pitch + MARGIN
    figure = blank_page(Layout(2 * MARGIN + across, height, across, [], []), title, note)
    x = MARGIN + LABEL
    for heading, some in blocks.items():
        write(figure, Place(x, top - 12), [heading], size=9, weight="bold")
        for row, of_one in enumerate(some):
            for i, picture in enumerate(of_one):
                put(figure, Place(x + i * pitch, top + row * pitch), picture, LARGE)
        x += some.shape[1] * pitch + GUTTER
    for row, name in enumerate(names):
        put_label(figure, Place(MARGIN, top + row * pitch + LARGE // 2), name)
    return figure


@rc_context(STYLE)
def draw_counts(counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> Figure:
    """Draw how many pictures each class has, from the most to the fewest in the first split.

    Args:
        counts: what a split is called to (C,) pictures of each class.
        names: (C,) of the classes; written where there is room for them, up to 100.
    """
    first = next(iter(counts.values()))
    order = sorted(range(len(names)), key=lambda i: -first[i])
    short = [shortened(names[i]) for i in order]
    pad = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    if len(names) > 100:
        figure = Figure(figsize=(9, 3.4 * len(counts)), layout=pad)
        panels = figure.subplots(len(counts), 1, squeeze=False, sharex=True)
    else:
        figure = Figure(figsize=(2 + 4 * len(counts), 1.2 + 0.15 * len(names)), layout=pad)
        panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)
    for axes, (name, values), colour in zip(panels.flat, counts.items(), COLOURS, strict=False):
        axes.set_title(plural(sum(values), f"{name} picture"))
        axes.set_axisbelow(True)
        draw = _draw_steps if len(names) > 100 else _draw_bars
        draw(axes, [values[i] for i in order], short, colour)
    return figure


def _draw_steps(axes: Axes, counts: Sequence[int], names: Sequence[str], colour: str) -> None:
    axes.stairs(counts, fill=True, color=colour)  # bars of their own would be thinner than a pixel
    axes.set_xlim(0, len(counts))
    axes.set_ylim(0, 1.1 * max(*counts, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xticks([])
    axes.set_ylabel("pictures")
    axes.set_xlabel(f"{len(names):,} classes, from {names[0]} to {names[-1]}")


def _draw_bars(axes: Axes, counts: Sequence[int], names: Sequence[str], colour: str) -> None:
    bars = axes.barh(range(len(counts)), counts, height=0.72, color=colour)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * max(*counts, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("pictures")
