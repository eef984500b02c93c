"""The figure of an ablation: what each part is worth, and how far it overfits without it."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hundredfold.figures.style import BLUE, GREY, INK, ORANGE, STYLE


class Bar(NamedTuple):
    """A variant's mean accuracies over its seeds, 0..1."""

    name: str
    training: float
    validation: float


@rc_context(STYLE)
def draw_ablation(bars: Sequence[Bar], title: str) -> Figure:
    """Draw each variant's accuracy on training and validation pictures, the gap between them."""
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, bar in enumerate(bars):
        axes.plot((bar.validation, bar.training), (row, row), color=GREY, linewidth=3, zorder=1)
        axes.annotate(
            f"gap {100 * (bar.training - bar.validation):.1f}",
            (max(bar.training, bar.validation), row),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    rows = range(len(bars))
    for name, colour, values in (
        ("training pictures, as they are", ORANGE, [bar.training for bar in bars]),
        ("validation pictures", BLUE, [bar.validation for bar in bars]),
    ):
        axes.scatter(values, rows, color=colour, s=55, zorder=2, label=name)
    if bars[0].name == "whole":
        axes.axvline(bars[0].validation, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks(rows, [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.08)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
