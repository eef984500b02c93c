"""The figure of a grid of pictures, a labelled row for each class or picture."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from hundredfold.figures.style import STYLE, clipped_name


@rc_context(STYLE)
def draw_grid(rows: Sequence[Tensor | Sequence[Tensor]], names: Sequence[str]) -> Figure:
    """Draw rows of pictures, the name of each row above its first picture.

    Args:
        rows: pictures, each (3, H, W) uint8; the rows may differ in length.
        names: name of each row.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(0.8 * columns, len(rows)))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.06, hspace=0)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
        axes.set_anchor("S")  # the room above the picture is for the name
    for row, pictures, name in zip(panels, rows, names, strict=True):
        row[0].set_title(clipped_name(name), fontsize=9, pad=3)
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    return figure
