"""The training loop, the same for CPU, CUDA and MPS, with one record per epoch."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import generator, prepare
from hundredfold.inference.logits import batch_size, predict_logits
from hundredfold.metrics.scores import measure
from hundredfold.models.timm import freeze_statistics
from hundredfold.runs.checkpoints import PartialEpoch
from hundredfold.runs.epoch import Epoch
from hundredfold.support.device import keep_memory
from hundredfold.support.errors import DivergedError
from hundredfold.training.batches import batches
from hundredfold.training.clock import Clock, advance, phase_at
from hundredfold.training.cuda_graphs import Recorder, fused
from hundredfold.training.optim import LOOKAHEAD_STEPS, look_ahead, set_schedule
from hundredfold.training.setup import Setup, batch_at
from hundredfold.training.state import State

LOSS_CHECK_STEPS = 50
"""Steps between two checks of the loss on a GPU, which has to be waited for. On a CPU, the loss is
checked after every step."""


@dataclass(frozen=True)
class StepRecord:
    """A finished step."""

    pictures: int
    """Number of pictures in the batch, of all processes together."""
    loss: Tensor
    """Loss before the step, 0-dimensional, on its device."""
    lr: float
    """Learning rate."""


def train_events(
    state: State, setup: Setup, clock: Clock | None = None
) -> Iterator[StepRecord | Epoch]:
    """Train from `state` to the end of the schedule; yield each step and each epoch.

    Whenever this yields, `state` is complete: a checkpoint of it continues in the same way.

    Args:
        state: changed in place.
        setup: what stays the same during training.
        clock: the clock of a run with a time budget; None for as many steps as `setup` has.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    if setup.device.type == "cpu":
        keep_memory()
    if clock and not clock.began:
        clock.began = time.perf_counter()
    while state.progress < 1 or state.partial_epoch.lr:
        if state.progress < 1:
            yield from _rest_of_epoch(state, setup, clock)
        state.history.append(_finish_epoch(state, setup))
        state.partial_epoch = PartialEpoch()
        if state.progress >= 1:
            state.recorder = Recorder()  # frees memory of the GPU
        yield state.history[-1]


def train_epochs(state: State, setup: Setup, clock: Clock | None = None) -> Iterator[Epoch]:
    """Train as `train_events` does, and yield only the epochs."""
    return (event for event in train_events(state, setup, clock) if isinstance(event, Epoch))


def _rest_of_epoch(state: State, setup: Setup, clock: Clock | None) -> Iterator[StepRecord]:
    """Take the remaining steps of the epoch, or of the schedule if that ends earlier."""
    state.model.train()
    if setup.config.weights:
        freeze_statistics(state.model)
    config, record, last = setup.config, state.partial_epoch, time.perf_counter()
    start, setup.processes.pace.waited = len(record.lr), 0.0  # waiting before is not of a step
    for images, labels in batches(setup, state.epochs_done, start):
        places = batch_at(len(record.lr), len(setup.train_split), config.batch_size)
        pictures = places.stop - places.start
        loss, lr = train_step(state, setup, images, labels)
        if clock:
            loss.item()  # wait for a GPU to finish the step, so that the clock measures it
        now = time.perf_counter()
        done = state.steps_done
        state.progress = advance(state.progress, now, clock) if clock else setup.share_of(done)
        if state.slow and (done % LOOKAHEAD_STEPS == 0 or state.progress >= 1):
            keep = config.lookahead**LOOKAHEAD_STEPS * state.progress**3
            look_ahead(state.model, state.slow, keep)
        record.pictures += pictures
        record.lr.append(lr)
        state.pending_losses.append(loss)
        record.seconds += now - last
        setup.processes.count_step(now - last)
        last = now
        yield StepRecord(pictures, loss, lr)
        if state.progress >= 1:
            return


def train_step(state: State, setup: Setup, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Take one step of the optimizer.

    Args:
        state: changed in place, except for its progress.
        setup: what stays the same during training.
        images: (B, 3, H, W) uint8, augmented.
        labels: (B,) int64, or (B, C) floating-point probabilities.

    Returns:
        The loss before the step, 0-dimensional, and the learning rate.

    Raises:
        DivergedError: the loss is not finite. On a CPU, the weights are unchanged then.
    """
    config, step = setup.config, state.progress * setup.steps
    lr = config.lr * set_schedule(
        state.optimizer, step, setup.steps, schedule=config.schedule, warmup=config.warmup
    )
    if setup.uses_cuda_graphs and len(labels) == config.batch_size:
        kind = (training_size(setup.sizes, state.progress), labels.shape)
        loss = state.recorder.take(kind, partial(_unchecked_step, state, setup), images, labels)
        _check_loss(loss, state, setup, images, labels)
    else:
        loss = gradients(state, setup, images, labels)
        _update(state, setup)
    state.steps_done += 1
    return loss, lr


def gradients(state: State, setup: Setup, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradients of a batch, and return its loss, 0-dimensional.

    The arguments and errors are those of `train_step`. With several processes, the pictures are the
    share of this process; the gradients and the loss are those of the whole batch.
    """
    if setup.processes.size > 1:
        # Dropout differs between the processes, and is the same again after a restart.
        purpose = ("dropout", state.steps_done, setup.processes.rank)
        torch.manual_seed(generator(setup.config.seed, *purpose).initial_seed())
    loss = _backward(state, setup, images, labels)
    _check_loss(loss, state, setup, images, labels)
    return loss


def _unchecked_step(state: State, setup: Setup, images: Tensor, labels: Tensor) -> Tensor:
    """Take a step without checking its loss; return the loss."""
    loss = _backward(state, setup, images, labels, compiled=setup.config.compile)
    _update(state, setup)
    return loss


def _backward(
    state: State, setup: Setup, images: Tensor, labels: Tensor, *, compiled: bool = False
) -> Tensor:
    """Compute the gradients without checking the loss; return the loss, 0-dimensional."""
    config = setup.config
    model = fused(state.model) if compiled else state.model
    x = prepare(images, *setup.channels, training_size(setup.sizes, state.progress))
    weight = total_weight(labels, setup.class_weights)
    state.model.zero_grad()  # the optimizer's method would load a compiler first
    parts = -(-len(x) // config.micro_batch) if config.micro_batch else 1
    losses = []
    for pictures, answers in zip(x.tensor_split(parts), labels.tensor_split(parts), strict=True):
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.mixed):
            loss = training_loss(
                model(pictures), answers, setup.class_weights, config.label_smoothing
            )
        if parts > 1:  # losses are means
            loss = loss * (total_weight(answers, setup.class_weights) / weight)
        (loss if setup.processes.size == 1 else loss * weight).backward()
        losses.append(loss.detach())
    loss = losses[0] if parts == 1 else torch.stack(losses).sum()
    loss = setup.processes.average(state.model, loss, weight)
    if config.clip_value:
        nn.utils.clip_grad_value_(state.model.parameters(), config.clip_value)
    return loss


def training_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Return the mean cross-entropy of a batch, weighted by class.

    Args:
        logits: (B, C).
        labels: (B,) int64, or (B, C) floating-point probabilities.
        class_weights: (C,); None if all classes weigh the same.
        label_smoothing: probability mass that is spread evenly over all classes (0..1).
    """
    if class_weights is None or not labels.is_floating_point():
        return F.cross_entropy(logits, labels, class_weights, label_smoothing=label_smoothing)
    # For probabilities, torch divides by the number of pictures instead of by their weights.
    total = F.cross_entropy(
        logits, labels, class_weights, reduction="sum", label_smoothing=label_smoothing
    )
    return total / total_weight(labels, class_weights)


def total_weight(labels: Tensor, class_weights: Tensor | None) -> Tensor | int:
    """Return the weight of a batch in the loss: the sum of the weights of its pictures.

    Args:
        labels: (B,) int64, or (B, C) floating-point probabilities.
        class_weights: (C,); None if all classes weigh the same.
    """
    if class_weights is None:
        return len(labels)
    if labels.is_floating_point():
        return (labels * class_weights).sum()  # no matrix product, which autocast would round
    return class_weights[labels].sum()


def _update(state: State, setup: Setup) -> None:
    """Move the weights along their gradients."""
    with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.mixed):
        state.optimizer.step()  # autocast speeds up the matrix products of muon


def _check_loss(loss: Tensor, state: State, setup: Setup, *batch: Tensor) -> None:
    """Raise DivergedError if a loss is not finite; on a GPU, only every LOSS_CHECK_STEPS steps."""
    due = setup.device.type == "cpu" or state.steps_done % LOSS_CHECK_STEPS == 0
    if due and not math.isfinite(loss.item()):
        raise _diverged(state, setup, *batch)


def _finish_epoch(state: State, setup: Setup) -> Epoch:
    """Evaluate the model after an epoch, and return the record of the epoch."""
    started, record = time.perf_counter(), state.partial_epoch
    state.collect_losses()
    mean_loss = sum(record.loss) / len(record.loss)
    if not math.isfinite(mean_loss):
        raise _diverged(state, setup)
    trained = time.perf_counter()
    metrics, split, info = {}, setup.validation_split, setup.info
    if len(split):
        state.validation_logits = predict_validation(state.model, setup)
        metrics = measure(state.validation_logits, split.labels, info.labels, info.parents)
    return Epoch(
        epoch=state.epochs_done + 1,
        progress=state.progress,
        seconds=record.seconds + trained - started,
        validation=metrics,
        validation_seconds=time.perf_counter() - trained,
        pictures=record.pictures,
        train_loss=mean_loss,
        lr=record.lr,
        loss=record.loss,
    )


def predict_validation(model: nn.Module, setup: Setup) -> Tensor:
    """Return the (N, C) logits of the validation split; each process computes a part of them."""
    split, processes = setup.validation_split, setup.processes
    count = batch_size(setup.info)
    logits = torch.zeros(len(split), len(setup.info.classes))
    starts = range(processes.rank * count, len(split), processes.size * count)
    mine = [slice(start, start + count) for start in starts]
    for batch, images in zip(mine, split.batches(mine), strict=True):
        logits[batch] = predict_logits(model, images, setup.info)
    processes.all_sum(logits)
    return logits


def _diverged(state: State, setup: Setup, *batch: Tensor) -> DivergedError:
    return DivergedError(
        f"The loss is no longer finite in epoch {state.epochs_done + 1}, step "
        f"{state.steps_done + 1}: lower --lr (now {setup.config.lr:g}), or set --clip-value.",
        batch,
    )


def training_size(sizes: Sequence[int], progress: float) -> int:
    """Return the side of the training pictures at a progress of 0..1.

    Args:
        sizes: side in pixels in each phase of the run; all phases have the same length.
        progress: share of the schedule that is done.
    """
    return sizes[phase_at(progress, len(sizes))]
