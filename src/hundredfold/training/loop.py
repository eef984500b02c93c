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
from hundredfold.training.setup import Setup
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


def training(state: State, setup: Setup, clock: Clock | None = None) -> Iterator[Step | Epoch]:
    """Train from where `state` stands to the end of the schedule; yield each step and each epoch.

    Whenever it yields, `state` is whole: saved there and loaded elsewhere it goes on the same.

    Args:
        state: changed in place.
        setup: what to train on, and how.
        clock: when to be done; None for as many steps as `setup` has.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    if clock and not clock.began:
        clock.began = time.perf_counter()
    while state.progress < 1 or state.part.lr:
        if state.progress < 1:
            yield from _steps(state, setup, clock)
        state.history.append(_record(state, setup))
        state.part = Part()
        if state.progress >= 1:
            state.recorder = Recorder()  # gives a GPU's memory back
        yield state.history[-1]


def epochs(state: State, setup: Setup) -> Iterator[Epoch]:
    """Do what `training` does, and yield the epochs alone."""
    return (event for event in training(state, setup) if isinstance(event, Epoch))


def _steps(state: State, setup: Setup, clock: Clock | None) -> Iterator[Step]:
    """Take the steps that are left of an epoch, or of the schedule."""
    state.model.train()
    this, last = state.part, time.perf_counter()
    for images, labels in batches(
        setup.training, state.epoch, setup.config, setup.device, len(this.lr), setup.processes
    ):
        places = batch_at(len(this.lr), len(setup.training), setup.config.batch_size)
        count = places.stop - places.start  # of all processes together
        loss, lr = step(state, setup, images, labels)
        if clock:
            loss.item()  # wait: a GPU's queue must not fool the clock
        now = time.perf_counter()
        state.progress = advance(state.progress, now, clock) if clock else state.step / setup.steps
        if state.slow and (state.step % LOOKAHEAD_STEPS == 0 or state.progress >= 1):
            kept = setup.config.lookahead**LOOKAHEAD_STEPS * state.progress**3
            look_ahead(state.model, state.slow, kept)
        this.pictures += count
        this.lr.append(lr)
        state.pending.append(loss)
        this.seconds += now - last
        last = now
        yield Step(count, loss, lr)
        if state.progress >= 1:
            return


def step(state: State, setup: Setup, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Take one step of the optimizer.

    Args:
        state: changed in place, but for its progress.
        setup: what to train on, and how.
        images: (B, 3, H, W) uint8, augmented.
        labels: (B,) int64.

    Returns:
        The loss before the step, 0-dimensional, and the learning rate.

    Raises:
        DivergedError: the loss is not finite; on a CPU no weight has moved.
    """
    config, step = setup.config, state.progress * setup.steps
    lr = config.lr * set_schedule(
        state.optimizer, step, setup.steps, schedule=config.schedule, warmup=config.warmup
    )
    if setup.recorded and len(labels) == setup.config.batch_size:
        size = training_size(setup.sizes, state.progress)
        loss = state.recorder.take(size, partial(_take, state, setup), images, labels)
        _check(loss, state, setup, images, labels)
    else:
        loss = gradients(state, setup, images, labels)
        _update(state, setup)
    state.step += 1
    return loss, lr


def gradients(state: State, setup: Setup, images: Tensor, labels: Tensor) -> Tensor:
    """Put each weight's gradient beside it; return the loss, 0-dimensional.

    Args, Raises: as `step`; the pictures are this process's share of the batch, gradient and loss
    are those of all of it.
    """
    if setup.config.freeze:
        set_frozen(state.model, state.progress < setup.config.freeze)
    if (
        setup.processes.size > 1
    ):  # dropout: in each process its own, and the same again after a restart
        purpose = ("dropout", state.step, setup.processes.rank)
        torch.manual_seed(generator(setup.config.seed, *purpose).initial_seed())
    loss = _backward(state, setup, images, labels)
    _check(loss, state, setup, images, labels)
    return loss


def _take(state: State, setup: Setup, images: Tensor, labels: Tensor) -> Tensor:
    """Take a step without a look at its loss, which is returned."""
    loss = _backward(state, setup, images, labels, compiled=setup.config.compile)
    _update(state, setup)
    return loss


def _backward(
    state: State, setup: Setup, images: Tensor, labels: Tensor, *, compiled: bool = False
) -> Tensor:
    """Put each weight's gradient beside it, whatever it is; return the loss, 0-dimensional."""
    config = setup.config
    model = fused(state.model) if compiled else state.model
    x = prepare(images, *setup.channels, training_size(setup.sizes, state.progress))
    with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.mixed):
        loss = F.cross_entropy(
            model(x), labels, setup.class_weights, label_smoothing=config.label_smoothing
        )
    state.model.zero_grad()  # not the optimizer's, which loads a compiler first
    loss.backward()
    weight = len(labels) if setup.class_weights is None else setup.class_weights[labels].sum()
    loss = setup.processes.average(state.model, loss.detach(), weight)
    if config.clip_value:
        nn.utils.clip_grad_value_(state.model.parameters(), config.clip_value)
    return loss


def _update(state: State, setup: Setup) -> None:
    """Move the weights along their gradients."""
    with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.mixed):
        state.optimizer.step()  # muon's products of matrices


def _check(loss: Tensor, state: State, setup: Setup, *batch: Tensor) -> None:
    """Raise DivergedError if a loss is not finite; a GPU's is not looked at each time."""
    looked_at = setup.device.type == "cpu" or state.step % LOOK == 0
    if looked_at and not math.isfinite(loss.item()):
        raise _diverged(state, setup, *batch)


def _record(state: State, setup: Setup) -> Epoch:
    """Judge an epoch that has just ended, and return its record."""
    began, part = time.perf_counter(), state.part
    state.settle()
    mean_loss = sum(part.loss) / len(part.loss)
    if not math.isfinite(mean_loss):
        raise _diverged(state, setup)
    trained = time.perf_counter()
    validation = {}
    if len(setup.judged):
        state.judged_logits = judge(state.model, setup)
        info = setup.info
        validation = measure(state.judged_logits, setup.judged.labels, info.labels, info.parents)
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


def judge(model: nn.Module, setup: Setup) -> Tensor:
    """Return the (N, C) logits of the pictures to judge by; each process computes its part."""
    logits = torch.zeros(len(setup.judged), len(setup.info.classes))
    for start in range(
        setup.processes.rank * BATCH, len(setup.judged), setup.processes.size * BATCH
    ):
        part = slice(start, start + BATCH)
        logits[part] = predict_logits(model, setup.judged[part].store, setup.info)
    setup.processes.add(logits)
    return logits


def _diverged(state: State, setup: Setup, *batch: Tensor) -> DivergedError:
    return DivergedError(
        f"The loss is no longer finite in epoch {state.epoch + 1}, step {state.step + 1}: lower "
        f"--lr (now {setup.config.lr:g}), or set --clip-value.",
        batch,
    )


def training_size(sizes: Sequence[int], progress: float) -> int:
    """Return the side of the training pictures at a progress of 0..1: sizes share it equally."""
    return sizes[part(progress, len(sizes))]
