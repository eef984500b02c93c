"""The style of all figures, and functions that save a figure as PNG or SVG."""

import io
import warnings
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hundredfold.support.text import printable_lines

BLUE, ORANGE, GREEN, GREY = "#2f7dd1", "#e07a1f", "#2e9b62", "#8d97a3"
COLOURS = (BLUE, ORANGE, GREEN, "#b0489b", "#c23b3b", "#7a6ad8", "#1d9aa8", "#a08420")
INK = "#1f2a36"
"""Colour of text, axes and grid; the page of a report replaces it with the page's text colour."""
_FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans", "Microsoft YaHei")
"""Fonts for characters that the default font lacks, used if they are installed."""


def _style() -> dict[Any, Any]:
    installed = set(font_manager.get_font_names())
    return {
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
        ),
        "font.family": ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)],
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titley": 1.0,  # automatic placement takes a sixth of the drawing time
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": INK,
        "grid.alpha": 0.12,
        "legend.frameon": False,
        "text.parse_math": False,  # the name of a class may contain $
        "svg.fonttype": "none",
        "svg.hashsalt": "hundredfold",
    }


STYLE = _style()


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG with a white background."""
    return _save(figure, "png", dpi=dpi)


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element with a transparent background; the text is reproducible."""
    text = _save(figure, "svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
    return printable_lines(text[text.index("<svg") :])


def _save(figure: Figure, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        # A browser has a font for such letters; a PNG shows boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        _lay_out(figure)
        figure.savefig(buffer, format=file_format, **options)
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Lay out a figure once: with a layout engine every `savefig` would draw it twice."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)


def clipped_name(name: str) -> str:
    """Return a name, cut to 30 characters."""
    return name if len(name) <= 30 else name[:29] + "…"


@rc_context(STYLE)
def panel(width: float = 4.6, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return a figure with a single panel; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
