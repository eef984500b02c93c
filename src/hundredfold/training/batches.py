"""Batches of augmented pictures from a split held in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hundredfold.augment import border, crop_flip, plan_epoch
from hundredfold.config import Config
from hundredfold.data.dataset import Split
from hundredfold.support.distributed import SINGLE_PROCESS, Processes
from hundredfold.support.errors import UserError


def count_steps(pictures: int, batch_size: int) -> int:
    """Return the number of batches an epoch: the last may be smaller, but never a single picture.

    Raises:
        UserError: fewer than two pictures, of which batch normalisation can learn nothing.
    """
    if pictures < 2:
        raise UserError(f"Training needs at least 2 pictures, and there are {pictures}.")
    whole, rest = divmod(pictures, batch_size)
    return whole + (rest > 1)


def batch_at(step: int, pictures: int, batch_size: int) -> slice:
    """Return the places, in an epoch's order, of its batch number `step` (from 0)."""
    return slice(step * batch_size, min((step + 1) * batch_size, pictures))


def batches(
    split: Split,
    epoch: int,
    config: Config,
    device: torch.device,
    start: int = 0,
    processes: Processes = SINGLE_PROCESS,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented batches, or the rest of one.

    Args:
        split: the training pictures, on any device.
        epoch: from 0.
        config: batch size, augmentation, balancing, seed.
        device: where the batches are wanted.
        start: how many of its batches to leave out.
        processes: of whose batches to yield this process's share.

    Yields:
        pictures (B, 3, H, W) uint8 and labels (B,) int64.
    """
    pad = border(config, split.store)
    plan = plan_epoch(split.labels, pad, epoch, config)
    order, plan = plan.order.to(split.store.device), plan.to(device)
    for step in range(start, count_steps(len(split), config.batch_size)):
        now = processes.share(batch_at(step, len(split), config.batch_size))
        batch = split[order[now]]
        images = batch.store.to(device)
        images = crop_flip(images, plan.top[now], plan.left[now], plan.flip[now], pad)
        yield images, batch.labels.to(device)
