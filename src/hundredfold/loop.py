"""The training loop: one for CPU, CUDA and MPS, one record an epoch."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import prepare
from hundredfold.batches import batches
from hundredfold.errors import DivergedError
from hundredfold.inference import predict_logits
from hundredfold.job import Job, State
from hundredfold.metrics import measure
from hundredfold.models import set_frozen
from hundredfold.optim import set_schedule
from hundredfold.pace import Clock, advance, part
from hundredfold.run import Epoch


class Watcher(Protocol):
    """What is told of every step while training."""

    def step(self, pictures: int, loss: Tensor, lr: float, progress: float) -> None:
        """Take note of a step.

        Args:
            pictures: how many it had.
            loss: before it, 0-dimensional, on its device.
            lr: its learning rate.
            progress: share of the schedule that is done after it, 0..1.
        """


@dataclass
class _Steps:
    """What an epoch's steps leave."""

    pictures: int = 0
    lr: list[float] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)


def epochs(state: State, job: Job, watch: Watcher, clock: Clock | None = None) -> Iterator[Epoch]:
    """Train from where `state` stands to the end of the schedule; yield a record of each epoch.

    Args:
        state: changed in place.
        job: what to train on, and how.
        watch: told of every step.
        clock: when to be done; None for as many steps as `job` has.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    if clock:
        clock.began = time.perf_counter()
    while state.progress < 1:
        started, done = time.perf_counter(), _Steps()
        state.model.train()
        for images, labels in batches(job.training, state.epoch, job.config, job.device):
            loss, lr = step(state, job, images, labels)
            if clock:
                loss.item()  # wait: a GPU's queue must not fool the clock
                state.progress = advance(state.progress, time.perf_counter(), clock)
            else:
                state.progress = state.step / job.steps
            done.pictures += len(labels)
            done.lr.append(lr)
            done.loss.append(loss)
            watch.step(len(labels), loss, lr, state.progress)
            if state.progress >= 1:
                break
        state.history.append(_record(state, job, done, started))
        yield state.history[-1]


def step(state: State, job: Job, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Take one step of the optimizer.

    Args:
        state: changed in place, but for its progress.
        job: what to train on, and how.
        images: (B, 3, H, W) uint8, augmented.
        labels: (B,) int64.

    Returns:
        The loss before the step, 0-dimensional, and the learning rate.
    """
    config = job.config
    if config.freeze:
        set_frozen(state.model, state.progress < config.freeze)
    x = prepare(images, *job.channels, training_size(job.sizes, state.progress))
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.mixed):
        loss = F.cross_entropy(
            state.model(x), labels, job.class_weights, label_smoothing=config.label_smoothing
        )
    lr = set_schedule(state.optimizer, state.progress * job.steps, job.steps, config)
    state.optimizer.zero_grad()
    loss.backward()
    if config.clip_value:
        nn.utils.clip_grad_value_(state.model.parameters(), config.clip_value)
    state.optimizer.step()
    state.step += 1
    return loss.detach(), lr


def _record(state: State, job: Job, done: _Steps, started: float) -> Epoch:
    """Judge an epoch that has just ended, and return its record."""
    losses: list[float] = torch.stack(done.loss).tolist()
    seconds = time.perf_counter() - started
    judged, info = job.judged, job.info
    mean_loss = sum(losses) / len(losses)
    if not math.isfinite(mean_loss):
        raise DivergedError(
            f"The loss is no longer finite in epoch {state.epoch + 1}: lower --lr "
            f"(now {job.config.lr:g}), or set --clip-value."
        )
    validation = {}
    if len(judged):
        state.judged_logits = predict_logits(state.model, judged.parts(), info)
        validation = measure(state.judged_logits, judged.labels, info.parents)
    return Epoch(
        epoch=state.epoch + 1,
        progress=state.progress,
        seconds=seconds,
        validation=validation,
        validation_seconds=time.perf_counter() - started - seconds,
        pictures=done.pictures,
        train_loss=mean_loss,
        lr=done.lr,
        loss=losses,
    )


def training_size(sizes: Sequence[int], progress: float) -> int:
    """Return the side of the training pictures at a progress of 0..1: sizes share it equally."""
    return sizes[part(progress, len(sizes))]
