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


def build_model(info: ModelInfo) -> nn.Module:
    """Return a new model that maps (B, 3, H, W) pictures to (B, C) logits.

    Raises:
        UserError: the model cannot have these widths.
    """
    widths = {"widths": info.widths} if info.widths else {}
    return MODELS[info.model](
        len(info.classes),
        **widths,
        side=info.image_size,
        batch_norm=info.batch_norm,
        residual=info.residual,
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())
