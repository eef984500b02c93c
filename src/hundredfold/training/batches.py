"""Batches of augmented pictures from a split held in memory."""

from collections.abc import Iterator

from torch import Tensor

from hundredfold.augment import augment, plan_epoch
from hundredfold.training.setup import Setup, batch_at, count_steps


def batches(setup: Setup, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of one epoch, or the rest of them.

    With several processes, each yields its share of every batch.

    Args:
        setup: the training pictures, the configuration and the device.
        epoch: number of the epoch, from 0.
        start: number of batches to skip.

    Yields:
        Pictures (B, 3, H, W) uint8 and labels, either (B,) int64 or (B, C) floating-point
        probabilities, on the device.
    """
    split, config, device = setup.train_split, setup.config, setup.device
    side, classes = split.store.shape[-1], len(setup.info.classes)
    plan = plan_epoch(split.labels, classes, side, epoch, config)
    order, plan = plan.order.to(split.store.device), plan.to(device)
    for step in range(start, count_steps(len(split), config.batch_size)):
        places = setup.processes.share(batch_at(step, len(split), config.batch_size))
        batch = split[order[places]]
        yield augment(batch.store.to(device), batch.labels.to(device), plan[places])
