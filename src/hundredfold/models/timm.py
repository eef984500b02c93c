"""Backbones of the timm library, with weights learned elsewhere: an extra.

`timm:resnet18` is its `resnet18`, whatever it is called there.
"""

import dataclasses
from typing import Any

from torch import nn

from hundredfold.config import TIMM
from hundredfold.errors import UnavailableError, UserError, extra, first_line
from hundredfold.files import expanded
from hundredfold.models.info import ModelInfo

HUB = "hub"
"""In place of a file of weights: those that timm's own hub has for the model."""


def build_timm(info: ModelInfo, weights: str = "") -> nn.Module:
    """Return a timm model that maps (B, 3, S, S) pictures to (B, C) logits.

    Args:
        info: names it, its classes and the side S of its pictures.
        weights: file of weights, .safetensors or .pth, whose head may have other classes: it is
            made new then. `hub` fetches timm's own; empty leaves it random.

    Raises:
        UserError: no such model or file, timm is missing, or weights of another model.
        UnavailableError: the hub cannot be reached.
    """
    timm = _timm()
    name = info.model.removeprefix(TIMM)
    if not timm.is_model(name):
        close = timm.list_models(f"*{name[:8]}*")[:5]
        hint = f", but {', '.join(close)}" if close else ""
        raise UserError(f"timm has no model {name!r}{hint}.")
    options: dict[str, Any] = {"num_classes": len(info.classes)}
    if weights and weights != HUB:
        path = expanded(weights)
        if not path.is_file():
            raise UserError(f"--weights {path}: there is no such file.")
        options["pretrained_cfg_overlay"] = {"file": str(path)}
    try:
        return _create(timm, name, info.image_size, options | {"pretrained": bool(weights)})
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        if weights == HUB:
            raise UnavailableError(
                f"The weights of {name} cannot be fetched ({type(error).__name__}): with a file of "
                "them, name it by --weights."
            ) from error
        what = f"{weights} does not fit {info.model}" if weights else f"{info.model} fails"
        raise UserError(f"{what}: {first_line(error)}") from error


def _timm() -> Any:
    with extra("timm", "timm's models need"):
        import timm  # noqa: PLC0415  # an extra
    return timm


def _create(timm: Any, name: str, side: int, options: dict[str, Any]) -> nn.Module:
    """Return a model for pictures of a side: transformers have to be told, others take any."""
    try:
        model: nn.Module = timm.create_model(name, img_size=side, **options)
    except TypeError:
        model = timm.create_model(name, **options)
    return model


def normalisation(info: ModelInfo) -> ModelInfo:
    """Return the info with the channel means and deviations that the model's weights expect.

    Raises:
        UserError: timm has no such weights of the model.
    """
    name = info.model.removeprefix(TIMM)
    try:
        known = _timm().get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no weights {name!r}: {first_line(error)}") from error
    if known is None:
        return info
    return dataclasses.replace(info, mean=tuple(known.mean), std=tuple(known.std))


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or free all but a timm model's head; frozen batch norm keeps its statistics."""
    head = {id(parameter) for parameter in model.get_classifier().parameters()}  # type: ignore[operator]
    model.train(not frozen)
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in head)
