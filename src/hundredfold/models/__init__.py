"""The models, one family a file: a function of (classes, widths) for each name."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from hundredfold.models.info import ModelInfo
from hundredfold.models.resnet9 import ResNet9
from hundredfold.models.whitenet import WhiteNet

__all__ = ["MODELS", "ModelInfo", "ResNet9", "WhiteNet", "build_model", "count_parameters"]

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet9": ResNet9,
    "whitenet": WhiteNet,
    "whiteresnet": partial(WhiteNet, depth=3),
}


def build_model(name: str, classes: int, widths: tuple[int, ...] = ()) -> nn.Module:
    """Return a new model that maps (B, 3, H, W) pictures to (B, classes) logits.

    Args:
        name: a key of MODELS.
        classes: number of outputs.
        widths: channels of each stage; empty for the model's own.
    """
    return MODELS[name](classes, widths) if widths else MODELS[name](classes)


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())
