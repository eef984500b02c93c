"""The models, one family a file: a function for each name, called as `build_model` does."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from hundredfold.config import TIMM
from hundredfold.models.info import ModelInfo
from hundredfold.models.resnet9 import ResNet9
from hundredfold.models.timm import build_timm, normalisation, set_frozen
from hundredfold.models.whitenet import WhiteNet

__all__ = [
    "MODELS",
    "ModelInfo",
    "ResNet9",
    "WhiteNet",
    "build_model",
    "count_parameters",
    "load_model",
    "normalisation",
    "set_frozen",
]

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet9": ResNet9,
    "whitenet": WhiteNet,
    "whiteresnet": partial(WhiteNet, widths=(64, 192, 512), deep=True),
}


def build_model(info: ModelInfo, weights: str = "") -> nn.Module:
    """Return a new model that maps (B, 3, H, W) pictures to (B, C) logits.

    Args:
        info: what it is.
        weights: of a timm model, see `build_timm`.

    Raises:
        UserError: the model cannot have these widths, or these weights.
    """
    if info.model.startswith(TIMM):
        return build_timm(info, weights)
    widths = {"widths": info.widths} if info.widths else {}
    return MODELS[info.model](
        len(info.classes),
        **widths,
        side=info.image_size,
        batch_norm=info.batch_norm,
        residual=info.residual,
    )


def load_model(info: ModelInfo, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a model with these weights, by name.

    Raises:
        UserError: as `build_model`.
        RuntimeError: they are of another model.
    """
    with torch.device("meta"):  # takes no memory, whatever the info claims
        build_model(info).load_state_dict(weights, assign=True)
    model = build_model(info)
    model.load_state_dict(weights)
    return model


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())
