"""Every figure: from plain values to a matplotlib figure, and from that to PNG or SVG."""

from hundredfold.figures.ablation import Bar, draw_ablation
from hundredfold.figures.comparison import draw_comparison
from hundredfold.figures.data import (
    draw_augmentation,
    draw_counts,
    draw_means,
    draw_samples,
)
from hundredfold.figures.explanation import draw_explanation, heat_picture
from hundredfold.figures.predictions import (
    draw_confusion,
    draw_coverage,
    draw_prediction,
    draw_reliability,
)
from hundredfold.figures.style import INK, to_png, to_svg
from hundredfold.figures.training import draw_curves, draw_history, draw_range_test
from hundredfold.figures.tuning import draw_tuning

__all__ = [
    "INK",
    "Bar",
    "draw_ablation",
    "draw_augmentation",
    "draw_comparison",
    "draw_confusion",
    "draw_counts",
    "draw_coverage",
    "draw_curves",
    "draw_explanation",
    "draw_history",
    "draw_means",
    "draw_prediction",
    "draw_range_test",
    "draw_reliability",
    "draw_samples",
    "draw_tuning",
    "heat_picture",
    "to_png",
    "to_svg",
]
