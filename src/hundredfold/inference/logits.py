"""Compute logits of pictures; evaluation, prediction and export all use this code."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hundredfold.augment import prepare
from hundredfold.models.info import ModelInfo
from hundredfold.support.errors import DivergedError

MAX_LOGIT = 1e30
"""Largest absolute logit; larger ones could overflow when divided by a small temperature."""
BATCH, BATCH_OF_LARGE = 500, 25
"""Pictures per forward pass, and that of pictures larger than LARGE, which take more memory. They
are fixed, because other batch sizes may round differently."""
LARGE = 128
"""Side in pixels above which pictures are large."""


def batch_size(info: ModelInfo) -> int:
    """Return the number of pictures per forward pass: a divisor of 500."""
    return BATCH if info.side <= LARGE else BATCH_OF_LARGE


@torch.inference_mode()
def predict_logits(model: nn.Module, images: Tensor | Iterable[Tensor], info: ModelInfo) -> Tensor:
    """Return the model's logits for pictures, in evaluation mode and float32.

    Args:
        model: maps (B, 3, S, S) to (B, C) on its own device; its mode is restored afterwards.
        images: (N, 3, H, W) uint8, on any device. Or parts of it, which need not be in memory at
            once; each part but the last has a multiple of `batch_size` pictures.
        info: describes how pictures are prepared for the model.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        DivergedError: a logit is not finite, or its absolute value exceeds MAX_LOGIT.

    Examples:
        >>> predict_logits(run.model(), load_sample().test.images, run.info()).shape
        torch.Size([500, 100])
    """
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in (info.mean, info.std))
    training = model.training
    model.eval()
    outputs = []
    for part in (images,) if isinstance(images, Tensor) else images:
        for batch in part.split(batch_size(info)):
            x = prepare(batch.to(device), mean, std, info.side)
            outputs.append(model(x).float().cpu())
    model.train(training)
    logits = torch.cat(outputs) if outputs else torch.empty(0, len(info.classes))
    if not (logits.abs() <= MAX_LOGIT).all():  # false for NaN as well
        raise DivergedError(
            "The model's outputs are not finite numbers: its training diverged, or its weights are "
            "damaged."
        )
    return logits
