"""Batches of augmented pictures from a split held in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hundredfold.augment import augment, plan_epoch
from hundredfold.config import Config
from hundredfold.data.dataset import Split
from hundredfold.support.distributed import SINGLE_PROCESS, Processes
from hundredfold.support.errors import UserError


def count_steps(pictures: int, batch_size: int) -> int:
    """Return the number of batches per epoch. The last may be smaller, but not a single picture.

    Raises:
        UserError: there are fewer than two pictures, and batch normalisation needs two.
    """
    if pictures < 2:
        raise UserError(f"Training needs at least 2 pictures, and there are {pictures}.")
    full, rest = divmod(pictures, batch_size)
    return full + (rest > 1)


def batch_at(step: int, pictures: int, batch_size: int) -> slice:
    """Return the places of batch number `step` (from 0) in the order of an epoch."""
    return slice(step * batch_size, min((step + 1) * batch_size, pictures))


def batches(
    split: Split,
    epoch: int,
    config: Config,
    device: torch.device,
    start: int = 0,
    processes: Processes = SINGLE_PROCESS,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of one epoch, or the rest of them.

    Args:
        split: the training pictures, on any device.
        epoch: number of the epoch, from 0.
        config: batch size, augmentation, balancing and seed.
        device: where the batches are needed.
        start: number of batches to skip.
        processes: the processes that train together; this process's share is yielded.

    Yields:
        Pictures (B, 3, H, W) uint8 and labels, either (B,) int64 or (B, C) floating-point
        probabilities.
    """
    plan = plan_epoch(split.labels, split.store.shape[-1], epoch, config)
    order, plan = plan.order.to(split.store.device), plan.to(device)
    for step in range(start, count_steps(len(split), config.batch_size)):
        places = processes.share(batch_at(step, len(split), config.batch_size))
        batch = split[order[places]]
        yield augment(batch.store.to(device), batch.labels.to(device), plan[places])
