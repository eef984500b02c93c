"""Batches of augmented pictures from a split."""

from collections.abc import Iterator

from torch import Tensor

from hundredfold.augment import augment, plan_epoch
from hundredfold.data.dataset import Split
from hundredfold.data.encoded import EncodedPictures, ReadingSeconds
from hundredfold.training.setup import Setup, batch_at, count_steps

MUCH = 0.1
"""Share of the time of training that waiting for pictures may take without a word."""


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

    Raises:
        UserError: the file of a picture that is decoded when it is needed was changed or deleted.
    """
    split, config, device = setup.train_split, setup.config, setup.device
    side, classes = split.store.shape[-1], len(setup.info.classes)
    plan = plan_epoch(split.labels, classes, side, epoch, config)
    order, plan = plan.order.to(split.store.device), plan.to(device)
    steps = range(start, count_steps(len(split), config.batch_size))
    places = [setup.processes.share(batch_at(i, len(split), config.batch_size)) for i in steps]
    if isinstance(split.store, EncodedPictures):
        split.store.seconds = ReadingSeconds()
    read = split.batches(order[where] for where in places)
    for where, images in zip(places, read, strict=True):
        labels = split.labels[order[where]]
        yield augment(images.to(device), labels.to(device), plan[where])


def describe_waiting(split: Split, seconds: float) -> str:
    """Return a sentence if an epoch waited for pictures much of the time; else an empty text.

    Args:
        split: the training split.
        seconds: time of the last epoch.
    """
    if not isinstance(split.store, EncodedPictures):
        return ""
    spent = split.store.seconds
    if spent.waited <= MUCH * seconds:
        return ""
    most, limit = max((spent.read, "reading their files"), (spent.decode, "decoding them"))
    return (
        f"Training waits for pictures {spent.waited / seconds:.0%} of the time, mostly for {limit} "
        f"({most / (spent.read + spent.decode):.0%}). A larger --cache would keep them decoded."
    )
