"""What predictions need besides a model's weights: the content of model.json."""

import math
from dataclasses import dataclass
from typing import Literal

from hundredfold.models.architectures import MOST_CHANNELS, MOST_SIDE, is_model
from hundredfold.pictures.pixels import Fit
from hundredfold.support.errors import UserError

COLDEST, HOTTEST = 1e-3, 1e3
"""Bounds of a temperature. Calibration finds values well within them."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The architecture of a model, the meaning of its outputs, and the preparation of its pictures.

    Raises:
        UserError: the fields contradict each other.
    """

    model: str
    """Name of the architecture, or `timm:` and the name of a model of the timm library."""
    widths: tuple[int, ...]
    """Channels of each stage; empty for the model's defaults."""
    batch_norm: bool = True
    """Whether the model has batch normalisation; ignored by architectures without this option. In a
    pretrained tf_efficientnet_lite model, it is folded into the convolutions."""
    levels: bool = False
    """Whether a pretrained tf_efficientnet_lite model classifies by the features of several stages
    (`models.levels`)."""
    residual: bool = True
    """Whether the model has residual connections; ignored by architectures without this option."""
    labels: Literal["fine", "coarse"]
    """Which labels the model was trained on."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the outputs."""
    superclasses: tuple[str, ...]
    """Names of the superclasses; empty if there are none."""
    parents: tuple[int, ...]
    """Index of the superclass of each class; empty if there are none."""
    image_size: int
    """Side of the pictures in pixels."""
    input_size: int = 0
    """Side in pixels to which the model enlarges the pictures; 0 if it does not."""
    fit: Fit = "crop"
    """How a picture that is not square becomes one."""
    mean: tuple[float, ...]
    """(3,) mean of each channel, for values scaled to 0..1: of the training pictures, or of
    those of the pretraining."""
    std: tuple[float, ...]
    """(3,) standard deviation of each channel, of the same pictures."""
    temperature: float = 1.0
    """Divisor of the logits before the softmax, which calibrates the probabilities."""

    def __post_init__(self) -> None:
        if not is_model(self.model):
            raise UserError(f"There is no model {self.model!r}.")
        coarse = len(self.superclasses)
        complete = len(self.parents) == (len(self.classes) if coarse else 0)
        if not complete or not all(0 <= parent < coarse for parent in self.parents):
            raise UserError("The model's hierarchy does not fit its classes.")
        if self.labels == "coarse" and coarse and self.classes != self.superclasses:
            raise UserError("The model's labels are coarse, but its classes are not.")
        if not self.classes or not 8 <= self.image_size <= MOST_SIDE:
            raise UserError(f"The model needs classes, and a picture size of 8 to {MOST_SIDE}.")
        if self.input_size and not self.image_size <= self.input_size <= MOST_SIDE:
            raise UserError(f"The model needs an input size of {self.image_size} to {MOST_SIDE}.")
        if not all(0 < width <= MOST_CHANNELS for width in self.widths):
            raise UserError(f"The model needs widths of 1 to {MOST_CHANNELS}.")
        if not COLDEST <= self.temperature <= HOTTEST:
            raise UserError(f"The model needs a temperature of {COLDEST:g} to {HOTTEST:g}.")
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise UserError("The model needs three channel means.")
        if len(self.std) != 3 or not all(0 < s < math.inf for s in self.std):
            raise UserError("The model needs three channel deviations above 0.")

    @property
    def side(self) -> int:
        """Side in pixels at which the network sees the pictures."""
        return self.input_size or self.image_size
