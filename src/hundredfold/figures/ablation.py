"""The figure of an ablation: accuracy and overfitting without each part of a recipe."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hundredfold.figures.style import BLUE, GREY, INK, ORANGE, STYLE
from hundredfold.metrics.scores import format_points


class VariantAccuracy(NamedTuple):
    """Mean accuracies (0..1) of a variant over its seeds."""

    name: str
    training: float
    validation: float


@rc_context(STYLE)
def draw_ablation(
    variants: Sequence[VariantAccuracy], title: str, reference: float | None
) -> Figure:
    """Draw the accuracy of each variant on training and validation pictures, and their gap.

    Args:
        variants: a row for each variant.
        title: title of the figure.
        reference: accuracy of the full recipe on validation pictures, marked by a line; None to
            draw no line.
    """
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, variant in enumerate(variants):
        axes.plot(
            (variant.validation, variant.training), (row, row), color=GREY, linewidth=3, zorder=1
        )
        axes.annotate(
            f"gap {format_points(variant.training - variant.validation, 1)}",
            (max(variant.training, variant.validation), row),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    rows = range(len(variants))
    for name, colour, values in (
        ("training pictures, not augmented", ORANGE, [variant.training for variant in variants]),
        ("validation pictures", BLUE, [variant.validation for variant in variants]),
    ):
        axes.scatter(values, rows, color=colour, s=55, zorder=2, label=name)
    if reference is not None:
        axes.axvline(reference, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks(rows, [variant.name for variant in variants])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.08)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
