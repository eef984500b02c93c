"""The figure of a search: what the trials reached, and which field mattered."""

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
    """Draw trials (number, accuracy 0..1) in their order, and each field's importance (0..1).

    Args:
        complete: trials that came to their end.
        pruned: trials that were stopped early.
        importance: of each field, the highest first; empty where it is not known.
        labels: fine or coarse, whose accuracy it is.
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
