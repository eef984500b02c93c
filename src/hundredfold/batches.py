"""Batches of augmented pictures from a split held in memory."""

from collections.abc import Iterator

from torch import Tensor

from hundredfold.augment import crop_flip, plan_epoch
from hundredfold.config import Config
from hundredfold.data import Split
from hundredfold.errors import UserError


def count_steps(pictures: int, batch_size: int) -> int:
    """Return the number of batches an epoch: the last may be smaller, but never a single picture.

    Raises:
        UserError: fewer than two pictures, of which batch normalisation can learn nothing.
    """
    if pictures < 2:
        raise UserError(f"Training needs at least 2 pictures, and there are {pictures}.")
    whole, rest = divmod(pictures, batch_size)
    return whole + (rest > 1)


def batches(split: Split, epoch: int, config: Config) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented batches.

    Args:
        split: the training pictures; the batches come on its device.
        epoch: from 0.
        config: batch size, augmentation, seed.

    Yields:
        pictures (B, 3, H, W) uint8 and labels (B,) int64.
    """
    plan = plan_epoch(len(split), epoch, config).to(split.images.device)
    for step in range(count_steps(len(split), config.batch_size)):
        now = slice(step * config.batch_size, (step + 1) * config.batch_size)
        batch = split[plan.order[now]]
        images = crop_flip(batch.images, plan.top[now], plan.left[now], plan.flip[now], config.pad)
        yield images, batch.labels
