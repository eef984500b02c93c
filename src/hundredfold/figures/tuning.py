"""The figure of a search: the accuracy of each trial and the importance of each field."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hundredfold.figures.style import BLUE, GREY, ORANGE, STYLE


@rc_context(STYLE)
def draw_tuning(
    complete: Sequence[tuple[int, float]],
    pruned: Sequence[tuple[int, float]],
    importance: Mapping[str, float],
    labels: str,
) -> Figure:
    """Draw the accuracy of the trials in their order, and the importance of each field.

    Args:
        complete: number and accuracy (0..1) of each complete trial.
        pruned: number and accuracy (0..1) of each trial that was stopped early.
        importance: importance (0..1) of each field, highest first; empty if it is not known.
        labels: fine or coarse, the labels of the accuracy.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    trials, fields = figure.subplots(1, 2)
    trials.set_title(f"Accuracy on the validation pictures, {labels}")
    if pruned:
        trials.scatter(*zip(*pruned, strict=True), color=GREY, marker="x", label="stopped early")
    numbers, values = zip(*complete, strict=True)
    trials.scatter(numbers, values, color=BLUE, s=25, label="trial")
    trials.step(numbers, list(accumulate(values, max)), color=ORANGE, where="post", label="best")
    trials.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    trials.xaxis.set_major_locator(MaxNLocator(integer=True))
    trials.set_xlabel("trial")
    figure.legend(loc="outside lower left", ncols=3)
    fields.set_title("Importance" if importance else "Importance: not known")
    names = list(importance)[::-1]
    fields.set_axisbelow(True)
    fields.grid(axis="y", visible=False)
    fields.barh(names, [importance[name] for name in names], color=BLUE)
    fields.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
