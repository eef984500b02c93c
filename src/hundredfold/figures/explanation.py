"""The figure of an explanation: a picture, its occlusion map, and similar training pictures."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from hundredfold.figures.style import BLUE, GREY, ORANGE, STYLE
from hundredfold.pictures.load import to_image

HEAT = LinearSegmentedColormap.from_list(
    "for and against", [(0.0, BLUE), (0.5, "#ffffff00"), (1.0, ORANGE)]
)

TITLE_WIDTH = 44
"""Number of characters of a title that fit over a picture."""


@rc_context(STYLE)
def draw_explanation(
    image: Tensor,
    heat: Tensor,
    heading: str,
    target: str,
    neighbours: Sequence[tuple[Tensor, str]],
) -> Figure:
    """Draw a picture, its occlusion map for a class, and similar training pictures.

    Args:
        image: (3, S, S) uint8.
        heat: (S, S) in nats, positive for the class, negative against it.
        heading: title of the picture.
        target: the class of the map.
        neighbours: similar pictures (3, S, S) uint8, each with a caption.
    """
    rows = (len(neighbours) + 3) // 4
    figure = Figure(figsize=(9.5, 4.4 + 2.1 * rows), layout="constrained")
    heights = [4.4, 2.1 * rows] if rows else [4.4]
    top, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    plain, mapped = top.subplots(1, 2)
    _show(plain, image, heading)
    _show(
        mapped,
        image.float().mean(0, keepdim=True).expand(3, -1, -1).byte(),
        f"for {target} (orange), against (blue)",
    )
    most = max(heat.abs().max().item(), 1e-6)
    overlay = mapped.imshow(
        heat.numpy(), cmap=HEAT, vmin=-most, vmax=most, alpha=0.75, interpolation="bilinear"
    )
    top.colorbar(overlay, ax=mapped, shrink=0.8, label="drop in log-probability (nats)")
    for part in below:
        part.suptitle(
            "Training pictures that the network finds most similar",
            fontsize=11,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
        panels = part.subplots(rows, 4, squeeze=False).flat
        for axes in panels:
            axes.set_axis_off()
        for axes, (picture, caption) in zip(part.axes, neighbours, strict=False):
            _show(axes, picture, caption, small=True)
    return figure


def heat_picture(image: Tensor, heat: Tensor, side: int) -> Image.Image:
    """Return a picture in grey beneath its occlusion map, `side` pixels wide, without text.

    Args:
        image: (3, S, S) uint8.
        heat: (S, S) in nats: positive values are drawn in orange, negative ones in blue, stronger
            the further they are from 0.
        side: side of the result in pixels.
    """
    grey = to_image(image).convert("L")
    most = max(heat.abs().max().item(), 1e-6)
    smooth = Image.fromarray(heat.numpy()).resize((side, side), Image.Resampling.BILINEAR)
    colours = HEAT(np.asarray(smooth) / (2 * most) + 0.5, alpha=None, bytes=True)
    below = grey.resize((side, side), Image.Resampling.NEAREST).convert("RGBA")
    return Image.alpha_composite(below, Image.fromarray(colours)).convert("RGB")


def _show(axes: Axes, image: Tensor, title: str, *, small: bool = False) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    if small:
        axes.set_title(title, fontsize=9, fontweight="normal", color=GREY, loc="center")
    else:
        axes.set_title("\n".join(textwrap.wrap(title, TITLE_WIDTH)))
