"""Backbones of the timm library, with weights learned elsewhere: an extra.

`timm:resnet18` is its `resnet18`, whatever it is called there.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hundredfold.config import TIMM
from hundredfold.models.info import ModelInfo
from hundredfold.support.errors import UnavailableError, UserError, extra, first_line
from hundredfold.support.files import expanded

HUB = "hub"
"""In place of a file of weights: those that timm's own hub has for the model."""


def build_timm(info: ModelInfo, weights: str = "") -> nn.Module:
    """Return a timm model that maps (B, 3, S, S) pictures to (B, C) logits.

    Args:
        info: names it, its classes and the side S of its pictures.
        weights: file of weights, .safetensors or .pth, for all but the head, which is made new.
            `hub` fetches timm's own; empty leaves them random.

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
    options = {"num_classes": len(info.classes), "pretrained": weights == HUB}
    try:
        model = _create(timm, name, info.image_size, options)
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        if weights == HUB:
            raise UnavailableError(
                f"The weights of {name} cannot be fetched ({type(error).__name__}): with a file of "
                "them, name it by --weights."
            ) from error
        raise UserError(f"{info.model} fails: {first_line(error)}") from error
    if weights not in ("", HUB):
        _fill(model, expanded(weights), info.model)
    return model


def _fill(model: nn.Module, path: Path, name: str) -> None:
    """Give a model all weights but its head's from a file, which must have each of them.

    The file may hold them in dictionaries within dictionaries and under longer names, as wrappers
    of models write them: what all names begin with is left out.

    Raises:
        UserError: there is no such file, it cannot be read, or it is of another model.
    """
    read = dict(_flat(_read(path)))
    heads = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    head = tuple(f"{head}." for head in heads)
    needed = {key: value for key, value in model.state_dict().items() if not key.startswith(head)}
    given = _without_prefix(read, needed)
    if not _fits(given, needed, head):
        given = _converted(given, model)
    if not _fits(given, needed, head):
        fitting = [key for key in needed if key in given and given[key].shape == needed[key].shape]
        raise UserError(
            f"--weights {path} does not fit {name}: {len(fitting)} of the model's {len(needed)} "
            f"tensors outside its head are among the file's {len(read)}, in the right shape, and "
            "all must be, with none besides. Is the file of another architecture?"
        )
    kept = {key: given[key] for key in needed if key in given}
    model.load_state_dict(kept, strict=False)


def _read(path: Path) -> Any:
    """Return what a file of weights holds; no code in it is run.

    Raises:
        UserError: there is no such file, it is damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"--weights {path}: there is no such file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise UserError(f"--weights {path} is damaged, or is no file of weights.") from error
        raise UserError(
            f"--weights {path} holds more than tensors: Python objects, which could run any code "
            "when they are read. It is refused. Have the program that made it save the tensors "
            "alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from error
    except Exception as error:  # damaged files fail in any way, and so do zip and pickle within
        raise UserError(f"--weights {path} is damaged, or is no file of weights.") from error


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in dictionaries within dictionaries, by their names with dots between."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, Tensor):
        yield prefix, content


def _without_prefix(read: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below the prefix under which most of the needed ones are.

    Of equally many, those of an averaged model (`ema`) are taken, as timm does.
    """
    prefixes: Counter[str] = Counter()
    for name, value in read.items():
        parts = name.split(".")
        for start in range(len(parts)):
            below = needed.get(".".join(parts[start:]))
            if below is not None and below.shape == value.shape:
                prefixes["".join(f"{part}." for part in parts[:start])] += 1
    best = max(prefixes, key=lambda prefix: (prefixes[prefix], "ema" in prefix), default="")
    return {name[len(best) :]: value for name, value in read.items() if name.startswith(best)}


def _fits(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], head: tuple[str, ...]) -> bool:
    """Return whether the given tensors are the needed ones, but for a head and counts of steps."""
    counts = ".num_batches_tracked"  # old files have none, and nothing here reads it
    there = all(
        key in given and given[key].shape == value.shape
        for key, value in needed.items()
        if not key.endswith(counts)
    )
    return there and all(key in needed or key.startswith(head) for key in given)


def _converted(given: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights as timm converts those of other sources and sides, if it can."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(given), model)) if convert else given
    except Exception:  # of another model it fails in any way; `_fill` says so
        return given


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
