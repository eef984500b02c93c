"""The one inference path: from pictures to logits, for evaluation, prediction and export alike."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hundredfold.augment import prepare
from hundredfold.models.info import ModelInfo
from hundredfold.support.errors import DivergedError

MOST_LOGIT = 1e30
"""Up to which a logit can be divided by any temperature."""
BATCH = 500
"""Pictures a forward pass; fixed, since sums of other batches may round otherwise."""


@torch.inference_mode()
def predict_logits(model: nn.Module, images: Tensor | Iterable[Tensor], info: ModelInfo) -> Tensor:
    """Return the model's logits for pictures, in evaluation mode and float32.

    Args:
        model: maps (B, 3, S, S) to (B, C) on its own device; left in the mode it came in.
        images: (N, 3, H, W) uint8, on any device; or parts of that, each of a multiple of BATCH
            pictures but for the last, so that not all need be in memory at once.
        info: how the model's pictures are prepared.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        DivergedError: a logit is not a finite number, or beyond MOST_LOGIT.
    """
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in (info.mean, info.std))
    training = model.training
    model.eval()
    outputs = []
    for part in (images,) if isinstance(images, Tensor) else images:
        for batch in part.split(BATCH):
            x = prepare(batch.to(device), mean, std, info.image_size)
            outputs.append(model(x).float().cpu())
    model.train(training)
    logits = torch.cat(outputs) if outputs else torch.empty(0, len(info.classes))
    if not (logits.abs() <= MOST_LOGIT).all():  # NaN is not, either
        raise DivergedError(
            "The model does not answer in finite numbers: its training diverged, or its weights "
            "are damaged."
        )
    return logits


def predict_features(
    model: nn.Module, images: Tensor | Iterable[Tensor], info: ModelInfo
) -> Tensor:
    """Return what the model's last linear layer is given for pictures.

    Args:
        model: as in `predict_logits`.
        images: as in `predict_logits`, N at least 1.
        info: as in `predict_logits`.

    Returns:
        (N, D) float32 on the CPU.
    """
    features: list[Tensor] = []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, given: features.append(given[0].float().cpu()))
    try:
        predict_logits(model, images, info)
    finally:
        hook.remove()
    return torch.cat(features)
