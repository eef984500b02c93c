"""Figures of predictions: confusion matrix, reliability, coverage, a single picture."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from hundredfold.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    STYLE,
    clipped_name,
    panel,
)
from hundredfold.metrics.calibration import Reliability
from hundredfold.metrics.scores import format_probability


@rc_context(STYLE)
def draw_confusion(confusion: Tensor, names: Sequence[str], parents: Sequence[int] = ()) -> Figure:
    """Draw a confusion matrix as shares of each label: correct in blue, mistakes in orange.

    Orange is strongest at the most common mistake, so that mistakes of a few per cent are visible.

    Args:
        confusion: (C, C) counts; rows are labels, columns are predictions.
        names: (C,) names of the classes.
        parents: (C,) superclass of each class; if given, the classes are sorted by superclass, with
            lines between superclasses.
    """
    order = sorted(range(len(names)), key=lambda i: (parents[i] if parents else 0, i))
    counts = confusion[order][:, order].double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    diagonal = torch.eye(len(names), dtype=torch.bool)
    size = min(4 + 0.24 * len(names), 11)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    for colour, off in ((BLUE, ~diagonal), (ORANGE, diagonal)):
        clear = LinearSegmentedColormap.from_list("", [(*_rgb(colour), 0.0), (*_rgb(colour), 1.0)])
        image = shares.masked_fill(off, 0)
        most = 1.0 if colour == BLUE else max(image.max().item(), 0.01)
        axes.imshow(image.numpy(), cmap=clear, norm=PowerNorm(0.5, 0, most), interpolation="none")
    axes.grid(visible=False)
    _label_cells(axes, [names[i] for i in order])
    if len(names) <= 20:
        _write_cells(axes, shares)
    edges = [i - 0.5 for i in range(1, len(order)) if parents and _breaks(order, parents, i)]
    if len(edges) < len(names) - 1:
        axes.hlines(edges, -0.5, len(names) - 0.5, color=INK, linewidth=0.4, alpha=0.5)
        axes.vlines(edges, -0.5, len(names) - 0.5, color=INK, linewidth=0.4, alpha=0.5)
    return figure


def _breaks(order: Sequence[int], parents: Sequence[int], i: int) -> bool:
    return parents[order[i]] != parents[order[i - 1]]


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _label_cells(axes: Axes, names: Sequence[str]) -> None:
    """Label rows and columns with the class names, unless there are too many."""
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(names) > 120:
        return
    size = 9 if len(names) <= 20 else 9 * 20 / len(names) + 3.2
    short = [clipped_name(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), short, fontsize=size)
    axes.tick_params(length=0)


def _write_cells(axes: Axes, shares: Tensor) -> None:
    for row, values in enumerate(shares.tolist()):
        for column, value in enumerate(values):
            if value >= 0.005:
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8)


@rc_context(STYLE)
def draw_reliability(before: Reliability, after: Reliability, labels: str) -> Figure:
    """Draw accuracy over confidence and the share of pictures, before and after calibration.

    Args:
        before: reliability without temperature scaling.
        after: reliability with temperature scaling.
        labels: fine or coarse, the labels of the accuracy.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = len(before.count)
    centres = [(i + 0.5) / bins for i in range(bins)]
    axes.set_title(f"Reliability, {labels}")
    axes.plot((0, 1), (0, 1), "--", color=GREY, linewidth=1, label="perfectly calibrated")
    for name, result, colour in (("before", before, ORANGE), ("after", after, BLUE)):
        filled = result.count > 0
        label = f"{name}: ECE {format_probability(result.error)}"
        x, y = result.confidence[filled].tolist(), result.accuracy[filled].tolist()
        axes.plot(x, y, "o-", color=colour, markersize=4, label=label)
        share = (result.count / result.count.sum()).tolist()
        counts.step(centres, share, where="mid", color=colour)
    for panel_axes, label in ((axes, "accuracy"), (counts, "pictures")):
        panel_axes.set_xlim(0, 1)
        panel_axes.set_ylim(bottom=0)
        panel_axes.set_ylabel(label)
        panel_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    counts.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    counts.set_xlabel("confidence")
    return figure


@rc_context(STYLE)
def draw_coverage(curves: Mapping[str, Tensor]) -> Figure:
    """Draw accuracy over coverage, (N,) for each name: accuracy on the most confident pictures."""
    figure, axes = panel(4.6, 4.4)
    axes.set_title("Answering only confident predictions")
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        count = len(curve)
        fewest = max(1, count // 100)  # the accuracy on very few pictures is noise
        answered = range(fewest, count + 1, max(1, count // 400))
        y = [curve[i - 1].item() for i in answered]
        axes.plot([i / count for i in answered], y, color=colour, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1)
    axes.set_ylim(top=1)
    axes.set_xlabel("share of pictures that are answered")
    axes.set_ylabel("accuracy on them")
    axes.legend(loc="lower left")
    return figure


@rc_context(STYLE)
def draw_prediction(image: Tensor, label: str, predicted: str) -> Figure:
    """Draw a picture, (3, H, W) uint8, with its label and the predicted class."""
    figure, axes = panel(3.6, 4)
    correct = label == predicted
    label, predicted = clipped_name(label), clipped_name(predicted)
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"label: {label}\npredicted: {predicted}", color=GREEN if correct else ORANGE)
    return figure
