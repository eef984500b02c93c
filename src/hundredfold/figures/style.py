"""How every figure looks, and from a figure to PNG or SVG."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hundredfold.support.text import printable_lines

BLUE, ORANGE, GREEN, GREY = "#2f7dd1", "#e07a1f", "#2e9b62", "#8d97a3"
COLOURS = (BLUE, ORANGE, GREEN, "#b0489b", "#c23b3b", "#7a6ad8", "#1d9aa8", "#a08420")
INK = "#1f2a36"
"""Of text, axes and grid; the page of a report puts its own text colour in its place."""
_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans", "Microsoft YaHei")
"""Fonts of what the default one lacks, each taken where it is installed."""


def _style() -> dict[Any, Any]:
    installed = set(font_manager.get_font_names())
    return {
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
        ),
        "font.family": ["DejaVu Sans", *(name for name in _SCRIPTS if name in installed)],
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titley": 1.0,  # looking for a free place takes a sixth of the time to draw
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": INK,
        "grid.alpha": 0.12,
        "legend.frameon": False,
        "text.parse_math": False,  # a class may be called $x
        "svg.fonttype": "none",
        "svg.hashsalt": "hundredfold",
    }


STYLE = _style()


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG on white."""
    return _save(figure, "png", dpi=dpi)


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element on nothing; the same figure gives the same text."""
    text = _save(figure, "svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
    return printable_lines(text[text.index("<svg") :])


def _save(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with rc_context(STYLE), glyphs_may_lack():
        _lay_out(figure)
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Place a figure's parts for good: savefig would draw it once more for that, each time."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)


@contextmanager
def glyphs_may_lack() -> Iterator[None]:
    """Let a font be without a class name's letters: a browser has one, and a PNG shows boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def shortened(name: str) -> str:
    """Return a name cut to the room that a figure has for one."""
    return name if len(name) <= 30 else name[:29] + "…"


@rc_context(STYLE)
def panel(width: float = 4.6, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return a figure of a single panel; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
