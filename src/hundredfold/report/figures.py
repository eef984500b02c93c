"""Draw the figures of a report from the run directory alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hundredfold.evaluation.predictions import ScoredPredictions
from hundredfold.figures.predictions import draw_confusion, draw_coverage, draw_reliability
from hundredfold.figures.style import to_png, to_svg
from hundredfold.figures.training import draw_history
from hundredfold.metrics.calibration import Reliability, reliability
from hundredfold.metrics.confusion import accuracy_by_coverage
from hundredfold.runs.run import Run


class RenderedFigure(NamedTuple):
    """A figure in both file formats."""

    svg: str
    png: bytes


def draw_figures(run: Run, levels: Sequence[ScoredPredictions]) -> dict[str, RenderedFigure]:
    """Return every figure of a report, by its file name without suffix.

    Raises:
        UserError: the run is damaged.
    """
    epoch_pictures = run.metrics()["epoch_pictures"]
    figures = {}
    if run.config().epochs:
        figures = draw_history(run.nonempty_history(), run.config().validate_on, epoch_pictures)
    for level in levels:
        figures[f"confusion-{level.name}"] = draw_confusion(
            level.confusion, level.classes, level.parents
        )
    calibrated = reliability(levels[0].confidence, levels[0].correct)
    figures["reliability"] = draw_reliability(_uncalibrated(run), calibrated, levels[0].name)
    curves = {level.name: accuracy_by_coverage(level.confidence, level.correct) for level in levels}
    figures["coverage"] = draw_coverage(curves)
    return {
        name: RenderedFigure(to_svg(figure), to_png(figure)) for name, figure in figures.items()
    }


def _uncalibrated(run: Run) -> Reliability:
    """Return the reliability without the temperature."""
    test = run.test_logits()
    confidence, predicted = test["logits"].double().softmax(1).max(1)
    return reliability(confidence, predicted == test["labels"])


def save_figures(run: Run, figures: Mapping[str, RenderedFigure]) -> None:
    """Write every figure into the run directory, as SVG and as PNG."""
    for name, figure in figures.items():
        run.save_figure(f"{name}.svg", figure.svg)
        run.save_figure(f"{name}.png", figure.png)
