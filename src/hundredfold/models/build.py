"""Build models, with new or with given weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hundredfold.models.architectures import MODELS, TIMM
from hundredfold.models.info import ModelInfo
from hundredfold.models.timm import build_timm


def build_model(info: ModelInfo, weights: str = "") -> nn.Module:
    """Return a new model that maps (B, 3, H, W) pictures to (B, C) logits.

    Args:
        info: the model's description.
        weights: pretrained weights of a timm model, as in `build_timm`.

    Raises:
        UserError: the model cannot have these widths, or these weights.
    """
    if info.model.startswith(TIMM):
        return build_timm(info, weights)
    widths = {"widths": info.widths} if info.widths else {}
    return MODELS[info.model](
        len(info.classes),
        **widths,
        side=info.side,
        batch_norm=info.batch_norm,
        residual=info.residual,
    )


def load_model(info: ModelInfo, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a model with the given weights.

    Args:
        info: the model's description.
        weights: tensors by their names in the model's state.

    Raises:
        UserError: as in `build_model`.
        RuntimeError: the weights belong to another model.
    """
    with torch.device("meta"):  # uses no memory, whatever sizes the description claims
        build_model(info).load_state_dict(weights, assign=True)
    model = build_model(info)
    model.load_state_dict(weights)
    return model


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, including frozen ones."""
    return sum(parameter.numel() for parameter in model.parameters())
