"""All that a model's weights need beside them to predict anywhere: the content of model.json."""

import math
from dataclasses import dataclass
from typing import Literal

from hundredfold.config import MOST_CHANNELS, MOST_SIDE, is_model
from hundredfold.support.errors import UserError

COLDEST, HOTTEST = 1e-3, 1e3
"""Bounds of a temperature: what calibration finds lies well within."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model's architecture, what its outputs mean, and how its pictures are prepared.

    Raises:
        UserError: the fields contradict each other.
    """

    model: str
    """resnet9, whitenet, whiteresnet, or timm: and the name of a model there."""
    widths: tuple[int, ...]
    """Channels of each stage; empty for the model's own."""
    batch_norm: bool = True
    """Whether batch normalisation follows the convolutions."""
    residual: bool = True
    """Whether the model has its residual connections, if it is of a kind that has any."""
    labels: Literal["fine", "coarse"]
    """Which labels it was trained on."""
    classes: tuple[str, ...]
    """Names of the outputs, in order."""
    superclasses: tuple[str, ...]
    """Names of the coarse classes; empty where there is no hierarchy."""
    parents: tuple[int, ...]
    """Index of each class's superclass; empty where there is no hierarchy."""
    image_size: int
    """Side of the pictures in pixels."""
    mean: tuple[float, ...]
    """(3,) mean of the training pictures a channel, of values scaled to 0..1."""
    std: tuple[float, ...]
    """(3,) standard deviation of the same."""
    temperature: float = 1.0
    """What logits are divided by before the softmax, so that probabilities are calibrated."""

    def __post_init__(self) -> None:
        if not is_model(self.model):
            raise UserError(f"There is no model {self.model!r}.")
        coarse = len(self.superclasses)
        whole = len(self.parents) == (len(self.classes) if coarse else 0)
        if not whole or not all(0 <= parent < coarse for parent in self.parents):
            raise UserError("The model's hierarchy does not fit its classes.")
        if self.labels == "coarse" and coarse and self.classes != self.superclasses:
            raise UserError("The model's labels are coarse, but its classes are not.")
        if not self.classes or not 8 <= self.image_size <= MOST_SIDE:
            raise UserError(f"The model needs classes, and a picture size of 8 to {MOST_SIDE}.")
        if not all(0 < width <= MOST_CHANNELS for width in self.widths):
            raise UserError(f"The model needs widths of 1 to {MOST_CHANNELS}.")
        if not COLDEST <= self.temperature <= HOTTEST:
            raise UserError(f"The model needs a temperature of {COLDEST:g} to {HOTTEST:g}.")
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise UserError("The model needs three channel means.")
        if len(self.std) != 3 or not all(0 < s < math.inf for s in self.std):
            raise UserError("The model needs three channel deviations above 0.")
