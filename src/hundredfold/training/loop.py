"""The training loop: one for CPU, CUDA and MPS, one record an epoch."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import generator, prepare
from hundredfold.inference.logits import BATCH, predict_logits
from hundredfold.metrics.scores import measure
from hundredfold.models.timm import set_frozen
from hundredfold.runs.epoch import Epoch
from hundredfold.support.errors import DivergedError
from hundredfold.training.batches import batch_at, batches
from hundredfold.training.clock import Clock, advance, part
from hundredfold.training.cuda_graphs import Recorder, fused
from hundredfold.training.optim import LOOKAHEAD_STEPS, look_ahead, set_schedule
from hundredfold.training.setup import Job
from hundredfold.training.state import Part, State

LOOK = 50
"""Steps between two looks at a GPU's loss, which make it wait; a CPU's is looked at each step."""


@dataclass(frozen=True)
class Step:
    """A step that was just taken."""

    pictures: int
    """Of all processes together."""
    loss: Tensor
    """Before it, 0-dimensional, on its device."""
    lr: float


def training(state: State, job: Job, clock: Clock | None = None) -> Iterator[Step | Epoch]:
    """Train from where `state` stands to the end of the schedule; yield each step and each epoch.

    Whenever it yields, `state` is whole: saved there and loaded elsewhere it goes on the same.

    Args:
        state: changed in place.
        job: what to train on, and how.
        clock: when to be done; None for as many steps as `job` has.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    if clock and not clock.began:
        clock.began = time.perf_counter()
    while state.progress < 1 or state.part.lr:
        if state.progress < 1:
            yield from _steps(state, job, clock)
        state.history.append(_record(state, job))
        state.part = Part()
        if state.progress >= 1:
            state.recorder = Recorder()  # gives a GPU's memory back
        yield state.history[-1]


def epochs(state: State, job: Job) -> Iterator[Epoch]:
    """Do what `training` does, and yield the epochs alone."""
    return (event for event in training(state, job) if isinstance(event, Epoch))


def _steps(state: State, job: Job, clock: Clock | None) -> Iterator[Step]:
    """Take the steps that are left of an epoch, or of the schedule."""
    state.model.train()
    this, last = state.part, time.perf_counter()
    for images, labels in batches(
        job.training, state.epoch, job.config, job.device, len(this.lr), job.group
    ):
        places = batch_at(len(this.lr), len(job.training), job.config.batch_size)
        count = places.stop - places.start  # of all processes together
        loss, lr = step(state, job, images, labels)
        if clock:
            loss.item()  # wait: a GPU's queue must not fool the clock
        now = time.perf_counter()
        state.progress = advance(state.progress, now, clock) if clock else state.step / job.steps
        if state.slow and (state.step % LOOKAHEAD_STEPS == 0 or state.progress >= 1):
            kept = job.config.lookahead**LOOKAHEAD_STEPS * state.progress**3
            look_ahead(state.model, state.slow, kept)
        this.pictures += count
        this.lr.append(lr)
        state.pending.append(loss)
        this.seconds += now - last
        last = now
        yield Step(count, loss, lr)
        if state.progress >= 1:
            return


def step(state: State, job: Job, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Take one step of the optimizer.

    Args:
        state: changed in place, but for its progress.
        job: what to train on, and how.
        images: (B, 3, H, W) uint8, augmented.
        labels: (B,) int64.

    Returns:
        The loss before the step, 0-dimensional, and the learning rate.

    Raises:
        DivergedError: the loss is not finite; on a CPU no weight has moved.
    """
    lr = set_schedule(state.optimizer, state.progress * job.steps, job.steps, job.config)
    if job.recorded and len(labels) == job.config.batch_size:
        size = training_size(job.sizes, state.progress)
        loss = state.recorder.take(size, partial(_take, state, job), images, labels)
        _check(loss, state, job, images, labels)
    else:
        loss = gradients(state, job, images, labels)
        _update(state, job)
    state.step += 1
    return loss, lr


def gradients(state: State, job: Job, images: Tensor, labels: Tensor) -> Tensor:
    """Put each weight's gradient beside it; return the loss, 0-dimensional.

    Args, Raises: as `step`; the pictures are this process's share of the batch, gradient and loss
    are those of all of it.
    """
    if job.config.freeze:
        set_frozen(state.model, state.progress < job.config.freeze)
    if job.group.size > 1:  # dropout: in each process its own, and the same again after a restart
        purpose = ("dropout", state.step, job.group.rank)
        torch.manual_seed(generator(job.config.seed, *purpose).initial_seed())
    loss = _backward(state, job, images, labels)
    _check(loss, state, job, images, labels)
    return loss


def _take(state: State, job: Job, images: Tensor, labels: Tensor) -> Tensor:
    """Take a step without a look at its loss, which is returned."""
    loss = _backward(state, job, images, labels, compiled=job.config.compile)
    _update(state, job)
    return loss


def _backward(
    state: State, job: Job, images: Tensor, labels: Tensor, *, compiled: bool = False
) -> Tensor:
    """Put each weight's gradient beside it, whatever it is; return the loss, 0-dimensional."""
    config = job.config
    model = fused(state.model) if compiled else state.model
    x = prepare(images, *job.channels, training_size(job.sizes, state.progress))
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.mixed):
        loss = F.cross_entropy(
            model(x), labels, job.class_weights, label_smoothing=config.label_smoothing
        )
    state.model.zero_grad()  # not the optimizer's, which loads a compiler first
    loss.backward()
    weight = len(labels) if job.class_weights is None else job.class_weights[labels].sum()
    loss = job.group.average(state.model, loss.detach(), weight)
    if config.clip_value:
        nn.utils.clip_grad_value_(state.model.parameters(), config.clip_value)
    return loss


def _update(state: State, job: Job) -> None:
    """Move the weights along their gradients."""
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.mixed):
        state.optimizer.step()  # muon's products of matrices


def _check(loss: Tensor, state: State, job: Job, *batch: Tensor) -> None:
    """Raise DivergedError if a loss is not finite; a GPU's is not looked at each time."""
    looked_at = job.device.type == "cpu" or state.step % LOOK == 0
    if looked_at and not math.isfinite(loss.item()):
        raise _diverged(state, job, *batch)


def _record(state: State, job: Job) -> Epoch:
    """Judge an epoch that has just ended, and return its record."""
    began, part = time.perf_counter(), state.part
    state.settle()
    mean_loss = sum(part.loss) / len(part.loss)
    if not math.isfinite(mean_loss):
        raise _diverged(state, job)
    trained = time.perf_counter()
    validation = {}
    if len(job.judged):
        state.judged_logits = judge(state.model, job)
        info = job.info
        validation = measure(state.judged_logits, job.judged.labels, info.labels, info.parents)
    return Epoch(
        epoch=state.epoch + 1,
        progress=state.progress,
        seconds=part.seconds + trained - began,
        validation=validation,
        validation_seconds=time.perf_counter() - trained,
        pictures=part.pictures,
        train_loss=mean_loss,
        lr=part.lr,
        loss=part.loss,
    )


def judge(model: nn.Module, job: Job) -> Tensor:
    """Return the (N, C) logits of the pictures to judge by; each process computes its part."""
    logits = torch.zeros(len(job.judged), len(job.info.classes))
    for start in range(job.group.rank * BATCH, len(job.judged), job.group.size * BATCH):
        part = slice(start, start + BATCH)
        logits[part] = predict_logits(model, job.judged[part].store, job.info)
    job.group.add(logits)
    return logits


def _diverged(state: State, job: Job, *batch: Tensor) -> DivergedError:
    return DivergedError(
        f"The loss is no longer finite in epoch {state.epoch + 1}, step {state.step + 1}: lower "
        f"--lr (now {job.config.lr:g}), or set --clip-value.",
        batch,
    )


def training_size(sizes: Sequence[int], progress: float) -> int:
    """Return the side of the training pictures at a progress of 0..1: sizes share it equally."""
    return sizes[part(progress, len(sizes))]
