"""The figure of several runs: accuracy over time, accuracy and loss over the schedule."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from hundredfold.figures.style import COLOURS, STYLE
from hundredfold.metrics.scores import top1_key
from hundredfold.runs.epoch import Epoch

DASHES = ("-", "--", ":", "-.")
"""Line styles; the next one is used when all colours have been used."""
MAX_POINTS = 40
"""Most points of a loss curve. Each is the mean of several steps, as single steps are noisy."""
FAR_APART = 5.0
"""Ratio of the longest to the shortest training above which the time axis is logarithmic."""

Histories: TypeAlias = Mapping[str, Sequence[Sequence[Epoch]]]
"""The finished epochs of each run of a group, by the name of the group."""
Curve: TypeAlias = list[tuple[float, float]]
"""Points (x, y)."""


@rc_context(STYLE)
def draw_comparison(histories: Histories, labels: str) -> Figure:
    """Draw accuracy over training time, and accuracy and training loss over the schedule.

    Args:
        histories: at least one epoch of each run. A group has one colour; if it has several
            seeds, they are drawn faintly beneath their mean.
        labels: fine or coarse, the labels of the accuracy.
    """
    columns = 2 if max(map(len, histories)) > 30 else 4
    height = 3.8 + 0.25 * -(-len(histories) // columns)
    figure = Figure(figsize=(12, height), layout="constrained")
    time, schedule, loss = figure.subplots(1, 3, width_ratios=(4, 3, 3))
    legend, seconds = [], []
    for index, (name, runs) in enumerate(histories.items()):
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        look: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": dash}
        clocks = [list(accumulate(epoch.seconds for epoch in run)) for run in runs]
        shares = [[epoch.progress for epoch in run] for run in runs]
        for axes, ends in ((time, clocks), (schedule, shares)):
            curves = [_accuracy(*pair, top1_key(labels)) for pair in zip(runs, ends, strict=True)]
            _draw_group(axes, curves, look, marker="o")
        _draw_group(loss, [_losses(*pair) for pair in zip(runs, shares, strict=True)], look)
        seconds += [clock[-1] for clock in clocks]
        seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
        legend.append(Line2D([], [], label=_shown(name) + seeds, **look))
    figure.legend(handles=legend, loc="outside lower center", ncols=columns)
    _finish(time, schedule, loss, labels)
    if time.lines and max(seconds) / min(seconds) > FAR_APART:
        _make_logarithmic(time)
    return figure


def _accuracy(history: Sequence[Epoch], ends: Sequence[float], key: str) -> Curve:
    """Return the points (end, accuracy) of the epochs that were judged."""
    both = zip(ends, history, strict=True)
    return [(end, epoch.validation[key]) for end, epoch in both if key in epoch.validation]


def _losses(history: Sequence[Epoch], ends: Sequence[float]) -> Curve:
    """Return at most MAX_POINTS points (progress, training loss), means of equally many steps."""
    steps = [
        (start + (end - start) * (step + 1) / len(epoch.loss), value)
        for start, end, epoch in zip((0.0, *ends[:-1]), ends, history, strict=True)
        for step, value in enumerate(epoch.loss)
    ]
    size = -(-len(steps) // MAX_POINTS)
    return [_mean(steps[start : start + size]) for start in range(0, len(steps), size)]


def _mean(points: Iterable[tuple[float, float]]) -> tuple[float, float]:
    x, y = zip(*points, strict=True)
    return sum(x) / len(x), sum(y) / len(y)


def _draw_group(
    axes: Axes, curves: Sequence[Curve], look: Mapping[str, Any], marker: str = ""
) -> None:
    """Draw the curves and their mean; only the curves if they differ in their number of points."""
    drawn = [curve for curve in curves if curve]
    if len(drawn) > 1 and len({len(curve) for curve in drawn}) == 1:
        for curve in drawn:
            axes.plot(*zip(*curve, strict=True), **look, linewidth=0.7, alpha=0.4)
        drawn = [[_mean(points) for points in zip(*drawn, strict=True)]]
    for curve in drawn:
        axes.plot(*zip(*curve, strict=True), **look, marker=marker, markersize=4)


def _shown(name: str) -> str:
    """Return a name that a legend shows: matplotlib hides names that begin with _."""
    return (" " if name.startswith("_") else "") + name


def _finish(time: Axes, schedule: Axes, loss: Axes, labels: str) -> None:
    """Set titles, limits and labels of the axes."""
    time.set_title(f"Validation accuracy, {labels}")
    schedule.set_title("Validation accuracy over the schedule")
    loss.set_title("Training loss (nats)")
    time.set_xlim(left=0)
    time.set_xlabel("training time (s)")
    for axes in (schedule, loss):
        axes.set_xlim(0, 1.03)
        axes.set_xlabel("share of the schedule")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (time, schedule):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if not axes.lines:
            axes.text(0.5, 0.5, "not judged", transform=axes.transAxes, ha="center")


def _make_logarithmic(axes: Axes) -> None:
    """Make a time axis logarithmic, with labels in seconds."""
    axes.set_xscale("log")
    axes.autoscale(axis="x")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
