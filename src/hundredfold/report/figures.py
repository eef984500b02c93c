"""The figures of a report, drawn from the run alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hundredfold.evaluation.predictions import ScoredPredictions
from hundredfold.figures.predictions import draw_confusion, draw_coverage, draw_reliability
from hundredfold.figures.style import to_png, to_svg
from hundredfold.figures.training import draw_history
from hundredfold.metrics.calibration import Reliability, reliability
from hundredfold.metrics.confusion import accuracy_by_coverage
from hundredfold.runs.run import Run


class Drawn(NamedTuple):
    """A figure, drawn."""

    svg: str
    png: bytes


def draw_figures(run: Run, levels: Sequence[ScoredPredictions]) -> dict[str, Drawn]:
    """Draw every figure of a report, by its name.

    Raises:
        UserError: the run is damaged.
    """
    whole = run.metrics()["epoch_pictures"]
    figures = draw_history(run.nonempty_history(), run.config().validate_on, whole)
    for level in levels:
        figures[f"confusion-{level.name}"] = draw_confusion(
            level.confusion, level.classes, level.parents
        )
    calibrated = reliability(levels[0].confidence, levels[0].correct)
    figures["reliability"] = draw_reliability(_raw(run), calibrated, levels[0].name)
    curves = {level.name: accuracy_by_coverage(level.confidence, level.correct) for level in levels}
    figures["coverage"] = draw_coverage(curves)
    return {name: Drawn(to_svg(figure), to_png(figure)) for name, figure in figures.items()}


def _raw(run: Run) -> Reliability:
    """Return the reliability without the temperature."""
    test = run.test_logits()
    confidence, predicted = test["logits"].double().softmax(1).max(1)
    return reliability(confidence, predicted == test["labels"])


def save_figures(run: Run, drawn: Mapping[str, Drawn]) -> None:
    """Write every figure into the run, as SVG and as PNG."""
    for name, figure in drawn.items():
        run.save_figure(f"{name}.svg", figure.svg)
        run.save_figure(f"{name}.png", figure.png)
