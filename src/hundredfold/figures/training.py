"""Figures of a training: accuracy, loss and learning rate."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hundredfold.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panel
from hundredfold.metrics.scores import format_probability, top1_key
from hundredfold.runs.epoch import Epoch


@rc_context(STYLE)
def draw_curves(history: Sequence[Epoch], judged: str, epoch_pictures: int) -> Figure:
    """Draw accuracy and loss over epochs and the learning rate over steps, side by side.

    Args:
        history: the finished epochs; the last one may be partial.
        judged: the pictures that each epoch was judged on: validation or test.
        epoch_pictures: number of pictures in a full epoch.
    """
    figure = Figure(
        figsize=(12, 3.6)
    )  # no layout engine: it would slow down the end of every training
    figure.subplots_adjust(left=0.045, right=0.985, bottom=0.14, top=0.91, wspace=0.17)
    accuracy, loss, rate = figure.subplots(1, 3)
    ends = _ends(history, epoch_pictures)
    _draw_accuracy(accuracy, history, ends, judged)
    _draw_loss(loss, history, ends, judged)
    _draw_rate(rate, history)
    return figure


@rc_context(STYLE)
def draw_range_test(lr: Sequence[float], loss: Sequence[float], suggestion: float) -> Figure:
    """Draw the mean loss over the learning rate, and mark the suggested rate."""
    figure, axes = panel(6, 3.6)
    axes.set_title("Loss while the learning rate rises")
    axes.semilogx(lr, loss, color=BLUE)
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    axes.axvline(suggestion, color=ORANGE, linestyle="--", label=f"steepest: {suggestion:.2g}")
    axes.set_ylim(top=2 * loss[0] - min(loss))  # the diverging end is cut off
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss (nats)")
    axes.legend(loc="lower left")
    return figure


@rc_context(STYLE)
def draw_history(history: Sequence[Epoch], judged: str, epoch_pictures: int) -> dict[str, Figure]:
    """Draw the panels of `draw_curves` as separate figures: accuracy, loss, rate."""
    ends = _ends(history, epoch_pictures)
    accuracy, axes = panel()
    _draw_accuracy(axes, history, ends, judged)
    loss, axes = panel()
    _draw_loss(axes, history, ends, judged)
    rate, axes = panel()
    _draw_rate(axes, history)
    return {"accuracy": accuracy, "loss": loss, "rate": rate}


def _draw_accuracy(
    axes: Axes, history: Sequence[Epoch], ends: Sequence[float], judged: str
) -> None:
    has_validation = any(epoch.validation for epoch in history)
    axes.set_title(
        f"Accuracy on the {judged} pictures" if has_validation else "No held-out pictures"
    )
    for level, colour in (("fine", BLUE), ("coarse", ORANGE)):
        points = [
            (end, epoch.validation[top1_key(level)])
            for epoch, end in zip(history, ends, strict=True)
            if top1_key(level) in epoch.validation
        ]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=level)
        axes.annotate(
            format_probability(points[-1][1]),
            points[-1],
            (0, 7),
            textcoords="offset points",
            ha="center",
        )
        axes.legend(loc="upper left")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.18)
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")


def _draw_loss(axes: Axes, history: Sequence[Epoch], ends: Sequence[float], judged: str) -> None:
    axes.set_title("Loss (nats)")
    steps = [
        (epoch.epoch - 1 + (end - epoch.epoch + 1) * (step + 1) / len(epoch.loss), value)
        for epoch, end in zip(history, ends, strict=True)
        for step, value in enumerate(epoch.loss)
    ]
    axes.plot(*zip(*steps, strict=True), color=GREY, linewidth=0.6, alpha=0.7, label="each step")
    losses = [epoch.train_loss for epoch in history]
    axes.plot(ends, losses, "o-", color=BLUE, label="training")
    points = [
        (end, e.validation["loss"]) for e, end in zip(history, ends, strict=True) if e.validation
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color=ORANGE, label=judged)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.legend()


def _ends(history: Sequence[Epoch], epoch_pictures: int) -> list[float]:
    """Return the end of each epoch on an axis of epochs; the last one may be partial."""
    return [epoch.epoch - 1 + epoch.pictures / epoch_pictures for epoch in history]


def _draw_rate(axes: Axes, history: Sequence[Epoch]) -> None:
    rates = [rate for epoch in history for rate in epoch.lr]
    axes.set_title("Learning rate")
    axes.plot(range(1, len(rates) + 1), rates, color=GREEN)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
