"""Models of the timm library, with random or pretrained weights.

`timm:NAME` is the model that timm calls NAME.
"""

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hundredfold.models.architectures import TIMM
from hundredfold.models.info import ModelInfo
from hundredfold.models.installed import INSTALLED, can_fold, fold_batch_norm, installed_weights
from hundredfold.models.levels import LevelNet
from hundredfold.support.errors import UnavailableError, UserError, first_line
from hundredfold.support.files import expanded

HUB = "hub"
"""Used in place of a file name: the weights that timm downloads for the model."""


def build_timm(info: ModelInfo, weights: str = "") -> nn.Module:
    """Return a timm model that maps (B, 3, S, S) pictures to (B, C) logits.

    Args:
        info: the name of the model, its classes and the side S of its pictures.
        weights: file of weights (.safetensors or .pth) for all layers but the head, which is new;
            `installed` for those of its package (`models.installed`); `hub` to download timm's
            weights; empty for random weights.

    Raises:
        UserError: there is no such model or file, or the weights belong to another model.
        UnavailableError: the weights cannot be downloaded.
    """
    timm = _timm()
    name = info.model.removeprefix(TIMM)
    if not timm.is_model(name):
        close = timm.list_models(f"*{name[:8]}*")[:5]
        hint = f" Models with similar names are {', '.join(close)}." if close else ""
        raise UserError(f"timm has no model {name!r}.{hint}")
    if info.levels and not can_fold(name):
        raise UserError(f"{info.model} cannot classify by the features of several stages.")
    options = {"num_classes": len(info.classes), "pretrained": weights == HUB}
    try:
        model = _create(timm, name, info.side, options)
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        if weights == HUB:
            raise UnavailableError(
                f"The weights of {name} cannot be downloaded ({type(error).__name__}). If you have "
                "a file of them, pass it with --weights."
            ) from error
        raise UserError(
            f"timm cannot create {info.model} for pictures of {info.side} px: {first_line(error)}"
        ) from error
    if weights == INSTALLED:
        _fill(model, installed_weights(name, model), weights, info.model)
    elif weights not in ("", HUB):
        _fill(model, dict(_flat(_read(expanded(weights)))), weights, info.model)
    if not info.batch_norm:
        fold_batch_norm(model)
    return LevelNet(model, len(info.classes)) if info.levels else model


def _fill(model: nn.Module, stored: Mapping[str, Tensor], source: str, name: str) -> None:
    """Load all weights of a model but those of its head, which must all be among those stored.

    Their names may be longer, as wrappers of models write them: a common prefix is removed.

    Args:
        model: changed in place.
        stored: tensors by name.
        source: the value of --weights, for errors.
        name: name of the model, for errors.

    Raises:
        UserError: the weights belong to another model.
    """
    heads = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    head = tuple(f"{head}." for head in heads)
    needed = {key: value for key, value in model.state_dict().items() if not key.startswith(head)}
    given = _without_prefix(stored, needed)
    if not _fits(given, needed, head):
        given = _converted(given, model)
    if not _fits(given, needed, head):
        fitting = [key for key in needed if key in given and given[key].shape == needed[key].shape]
        raise UserError(
            f"--weights {source} does not fit {name}. Apart from its head, the model needs "
            f"{len(needed)} tensors; {len(fitting)} of them are in the file with the right shape. "
            f"The file has {len(stored)} tensors. It must contain all tensors that the model "
            "needs, and no others. The file may be for another architecture."
        )
    found = {key: given[key] for key in needed if key in given}
    model.load_state_dict(found, strict=False)


def _read(path: Path) -> Any:
    """Return the content of a file of weights, without running any code in it.

    Raises:
        UserError: there is no such file, it is damaged, or it holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"--weights {path}: there is no such file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise UserError(f"--weights {path} is damaged, or not a file of weights.") from error
        raise UserError(
            f"--weights {path} contains Python objects besides tensors. Reading them could run any "
            "code, so the file is refused. Save it again with tensors only: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from error
    except Exception as error:  # a damaged file can make zip and pickle fail in any way
        raise UserError(f"--weights {path} is damaged, or not a file of weights.") from error


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries with their keys, joined by dots."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, Tensor):
        yield prefix, content


def _without_prefix(
    stored: Mapping[str, Tensor], needed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors under the prefix that has most of the needed ones, without the prefix.

    If several prefixes have equally many, that of an averaged model (`ema`) is taken, as in timm.
    """
    prefixes: Counter[str] = Counter()
    for name, value in stored.items():
        parts = name.split(".")
        for start in range(len(parts)):
            below = needed.get(".".join(parts[start:]))
            if below is not None and below.shape == value.shape:
                prefixes["".join(f"{part}." for part in parts[:start])] += 1
    best = max(prefixes, key=lambda prefix: (prefixes[prefix], "ema" in prefix), default="")
    return {name[len(best) :]: value for name, value in stored.items() if name.startswith(best)}


def _fits(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], head: tuple[str, ...]) -> bool:
    """Return whether the given tensors are those needed, apart from a head and batch counts."""
    counts = ".num_batches_tracked"  # old files do not have it, and nothing here reads it
    complete = all(
        key in given and given[key].shape == value.shape
        for key, value in needed.items()
        if not key.endswith(counts)
    )
    return complete and all(key in needed or key.startswith(head) for key in given)


def _converted(given: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights as timm converts them from other sources and picture sizes, if it can."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(given), model)) if convert else given
    except Exception:  # it can fail in any way for another model, which `_fill` reports
        return given


def _timm() -> Any:
    import timm  # noqa: PLC0415  # takes a second to load

    return timm


def _create(timm: Any, name: str, side: int, options: dict[str, Any]) -> nn.Module:
    """Return a model for pictures with a given side: only transformers need to know it."""
    try:
        model: nn.Module = timm.create_model(name, img_size=side, **options)
    except TypeError:
        model = timm.create_model(name, **options)
    return model


def normalisation(info: ModelInfo) -> ModelInfo:
    """Return the info with the means and deviations that the model's pretrained weights expect.

    Raises:
        UserError: timm has no such weights for the model.
    """
    name = info.model.removeprefix(TIMM)
    try:
        known = _timm().get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no weights {name!r}: {first_line(error)}") from error
    if known is None:
        return info
    return dataclasses.replace(info, mean=tuple(known.mean), std=tuple(known.std))


def freeze_layers(model: nn.Module, share: float) -> None:
    """Exclude the first layers of a timm model from training.

    Args:
        model: changed in place.
        share: share of the layers to freeze (0..1). Layers are what timm gives learning rates to:
            blocks, and what comes before and after them. The last layer, the head, is never
            frozen.
    """
    layers = layer_numbers(model)
    last = max(layers.values())
    frozen = min(share * (last + 1), last)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layers[name] >= frozen)


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Return the number of the layer, from 0 at the input, of each parameter by its name."""
    from timm.models import group_parameters  # noqa: PLC0415  # takes a second to load

    if isinstance(model, LevelNet):
        of_body = layer_numbers(model.body)
        head = dict.fromkeys(("classifier.weight", "classifier.bias"), max(of_body.values()) + 1)
        return {f"body.{name}": number for name, number in of_body.items()} | head
    matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
    numbers: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return numbers


def digest_of_body(model: nn.Module) -> str:
    """Return the SHA-256, in hex digits, of all weights but those of the last layer, the head."""
    layers, digest = layer_numbers(model), hashlib.sha256()
    last = max(layers.values())
    for name, value in model.state_dict().items():
        if layers.get(name) != last:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def freeze_statistics(model: nn.Module) -> None:
    """Let batch normalisation keep the mean and the variance of its pretraining."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
