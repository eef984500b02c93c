"""The figures of a report, drawn from the run alone."""

from collections.abc import Mapping
from typing import TypeAlias

from matplotlib.figure import Figure

from hundredfold.analysis import coverage
from hundredfold.calibration import Reliability, reliability
from hundredfold.figures import (
    draw_confusion,
    draw_coverage,
    draw_history,
    draw_reliability,
    to_png,
    to_svg,
)
from hundredfold.levels import Level
from hundredfold.run import Run

Drawn: TypeAlias = Mapping[str, Figure]
"""Figures by name."""


def draw_figures(run: Run, levels: list[Level]) -> Drawn:
    """Draw every figure of a report."""
    config = run.config
    figures = draw_history(run.history, config.labels, config.validate_on)
    for level in levels:
        figures[f"confusion-{level.name}"] = draw_confusion(
            level.confusion, level.classes, level.parents
        )
    calibrated = reliability(levels[0].confidence, levels[0].correct)
    figures["reliability"] = draw_reliability(_raw(run), calibrated)
    curves = {level.name: coverage(level.confidence, level.correct) for level in levels}
    figures["coverage"] = draw_coverage(curves)
    return figures


def _raw(run: Run) -> Reliability:
    """Return the reliability without the temperature."""
    test = run.test_logits
    confidence, predicted = test["logits"].double().softmax(1).max(1)
    return reliability(confidence, predicted == test["labels"])


def save_figures(run: Run, figures: Drawn) -> None:
    """Write every figure into the run, as SVG and as PNG."""
    for name, figure in figures.items():
        run.figure(f"{name}.svg", to_svg(figure).encode())
        run.figure(f"{name}.png", to_png(figure))
