"""Batches of augmented pictures from a split."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from hundredfold.augment import augment, plan_epoch
from hundredfold.data.dataset import Split
from hundredfold.data.encoded import EncodedPictures
from hundredfold.training.setup import Setup, batch_at, count_steps

AHEAD = 2
"""Number of batches that are decoded while the steps before them are computed."""
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
    chosen = (order[where] for where in places)
    for where, batch in zip(places, _read(split, chosen), strict=True):
        yield augment(batch.images.to(device), batch.labels.to(device), plan[where])


def _read(split: Split, chosen: Iterable[Tensor]) -> Iterator[Split]:
    """Yield the pictures at each index; encoded ones are decoded before they are asked for."""
    if not isinstance(split.store, EncodedPictures):
        yield from (split[index] for index in chosen)
        return
    with ThreadPoolExecutor(1) as reader:
        pending = deque[Future[Split]]()
        try:
            for index in chosen:
                pending.append(reader.submit(split.__getitem__, index))
                if len(pending) > AHEAD:
                    yield _wait(pending.popleft(), split.store)
            while pending:
                yield _wait(pending.popleft(), split.store)
        finally:
            reader.shutdown(cancel_futures=True)


def _wait(batch: Future[Split], store: EncodedPictures) -> Split:
    started = time.perf_counter()
    split = batch.result()
    store.waited_seconds += time.perf_counter() - started
    return split


def describe_waiting(split: Split, seconds: float) -> str:
    """Return a sentence if training waits for pictures much of the time; else an empty text.

    Args:
        split: the training split.
        seconds: time of training since the last call.
    """
    if not isinstance(split.store, EncodedPictures):
        return ""
    store = split.store
    read, decode, waited = store.read_seconds, store.decode_seconds, store.waited_seconds
    store.read_seconds = store.decode_seconds = store.waited_seconds = 0.0
    if waited <= MUCH * seconds:
        return ""
    limit = "reading their files" if read > decode else "decoding them"
    return (
        f"Training waits for pictures {waited / seconds:.0%} of the time. Most of it is {limit} "
        f"({max(read, decode) / (read + decode):.0%}). A larger --cache would keep them decoded."
    )
