"""Compute features of pictures: the inputs of a model's last layer, kept in the cache folder."""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from hundredfold.inference.feature_cache import FeatureCache
from hundredfold.inference.logits import batch_size, predict_logits
from hundredfold.models.build import build_model
from hundredfold.models.info import ModelInfo
from hundredfold.models.timm import normalisation
from hundredfold.recipes import probe
from hundredfold.support.environment import device_name
from hundredfold.support.errors import UserError
from hundredfold.support.files import fingerprint


def predict_features(
    model: nn.Module, images: Tensor | Iterable[Tensor], info: ModelInfo
) -> Tensor:
    """Return the inputs of the model's last linear layer for pictures.

    Args:
        model: as in `predict_logits`.
        images: as in `predict_logits`, N at least 1.
        info: as in `predict_logits`.

    Returns:
        (N, D) float32 on the CPU.
    """
    return predict_with_features(model, images, info)[1]


def predict_with_features(
    model: nn.Module, images: Tensor | Iterable[Tensor], info: ModelInfo
) -> tuple[Tensor, Tensor]:
    """Return the logits (N, C) of pictures, and the inputs (N, D) of the last linear layer.

    The arguments are those of `predict_features`, and both results are float32 on the CPU.
    """
    features: list[Tensor] = []
    hook = last_linear(model).register_forward_pre_hook(
        lambda _, args: features.append(args[0].float().cpu())
    )
    try:
        logits = predict_logits(model, images, info)
    finally:
        hook.remove()
    return logits, torch.cat(features)


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model, which maps features to logits.

    Raises:
        UserError: the model ends otherwise, as some of timm do: with a convolution, or two heads.
    """
    own = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = model.get_classifier() if hasattr(model, "get_classifier") else own[-1]  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{type(model).__name__} does not end with a single linear layer, which this needs. "
            "Choose another model."
        )
    return head


def feature_network() -> tuple[nn.Module, ModelInfo]:
    """Return the pretrained network of the recipe `probe`, and how it takes pictures.

    The network has a random head; it is for features alone.

    Raises:
        UserError: the pretrained weights are not installed, or are damaged.
    """
    config = probe()
    info = ModelInfo(
        model=config.model,
        widths=(),
        batch_norm=False,
        levels=True,
        labels="fine",
        classes=("any",),
        superclasses=(),
        parents=(),
        image_size=config.size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    info = normalisation(info)
    return build_model(info, config.weights), info


def cached_features(
    model: nn.Module,
    parts: Iterable[Tensor],
    info: ModelInfo,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Return what `predict_features` does, and compute it only for pictures that are not cached.

    The cache knows a picture by its pixels, and the features also by the weights and the
    normalisation of the model, the processor, the number of threads and the version of torch.
    Every forward pass has the same number of pictures, because other numbers may round differently.
    So cached features are the same to the bit as features that are computed anew.

    Args:
        model: as in `predict_features`.
        parts: all pictures in order, (B, 3, S, S) uint8 at a time.
        info: as in `predict_features`.
        advance: receives the number of pictures just finished.

    Returns:
        (N, D) float32 on the CPU.
    """
    salt, rows = _salt(model, info), []
    with FeatureCache() as cache:
        for part in parts:
            keys = [_key(picture, salt) for picture in part.cpu()]
            known = cache.read(keys)
            missing = [i for i, key in enumerate(keys) if key not in known]
            for start in range(0, len(missing), batch_size(info)):
                chosen = missing[start : start + batch_size(info)]
                batch = part.new_zeros(batch_size(info), *part.shape[1:])
                batch[: len(chosen)] = part[chosen]
                computed = predict_features(model, batch, info)[: len(chosen)]
                new = {keys[i]: row for i, row in zip(chosen, computed, strict=True)}
                cache.write(new)
                known |= new
                advance(len(chosen))
            advance(len(part) - len(missing))
            rows += [known[key] for key in keys]
    return torch.stack(rows) if rows else torch.empty(0, last_linear(model).in_features)


def _salt(model: nn.Module, info: ModelInfo) -> bytes:
    """Return a digest of everything but the pixels that determines a picture's features."""
    head = {id(tensor) for tensor in last_linear(model).state_dict(keep_vars=True).values()}
    weights = hashlib.blake2b(digest_size=32)
    device = next(model.parameters()).device
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in head:
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().contiguous().numpy().data)
    threads = torch.get_num_threads()
    machine = (torch.__version__, threads, device.type, device_name(device), batch_size(info))
    return fingerprint(info.model, weights.hexdigest(), info.mean, info.std, info.side, machine)


def _key(picture: Tensor, salt: bytes) -> bytes:
    pixels = picture.contiguous().numpy().data
    return hashlib.blake2b(pixels, digest_size=16, key=salt).digest()
