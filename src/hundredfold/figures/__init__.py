"""Every figure: from plain values to a matplotlib figure, and from that to PNG or SVG."""

from hundredfold.figures.predictions import (
    draw_confusion,
    draw_coverage,
    draw_prediction,
    draw_reliability,
)
from hundredfold.figures.style import INK, to_png, to_svg
from hundredfold.figures.training import draw_curves, draw_history

__all__ = [
    "INK",
    "draw_confusion",
    "draw_coverage",
    "draw_curves",
    "draw_history",
    "draw_prediction",
    "draw_reliability",
    "to_png",
    "to_svg",
]
