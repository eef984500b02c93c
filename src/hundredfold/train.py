"""Training: one loop for CPU, CUDA and MPS, one record an epoch, one run directory."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import prepare
from hundredfold.batches import batches
from hundredfold.config import Config
from hundredfold.data import Dataset, Split, load_data
from hundredfold.device import pick_device
from hundredfold.display import Display
from hundredfold.environment import describe, device_name
from hundredfold.errors import UserError
from hundredfold.evaluate import measure_model
from hundredfold.inference import predict_logits
from hundredfold.job import Job, State, first_state, make_job
from hundredfold.metrics import measure
from hundredfold.models import count_parameters
from hundredfold.optim import lookahead_, lookahead_decay, set_schedule
from hundredfold.report import draw_curves
from hundredfold.run import Epoch, Run, new_run


class Watcher(Protocol):
    """What is told of every step while training."""

    def step(self, pictures: int, loss: Tensor, lr: float) -> None:
        """Take the number of pictures, the loss (0-dimensional, on its device), the rate."""


def epochs(state: State, job: Job, watch: Watcher) -> Iterator[Epoch]:
    """Train from where `state` stands to the last epoch; yield a record of each.

    Args:
        state: changed in place.
        job: what to train on, and how.
        watch: told of every step.

    Raises:
        UserError: the loss is no longer finite.
    """
    config, device = job.config, job.device
    model, optimizer = state.model, state.optimizer
    mean, std = (torch.tensor(values, device=device) for values in (job.info.mean, job.info.std))
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    while state.epoch < config.epochs:
        started, rates, losses = time.perf_counter(), [], []
        model.train()
        for images, labels in batches(job.training, state.epoch, config):
            x = prepare(images, mean, std, training_size(config, state.step, job.steps))
            with mixed:
                loss = F.cross_entropy(model(x), labels, label_smoothing=config.label_smoothing)
            lr = set_schedule(optimizer, state.step, job.steps, config)
            optimizer.zero_grad()
            loss.backward()
            if config.clip_value:
                nn.utils.clip_grad_value_(trainable, config.clip_value)
            optimizer.step()
            if (decay := lookahead_decay(state.step, job.steps, config)) is not None:
                lookahead_(state.slow, model, decay)
            state.step += 1
            rates.append(lr)
            losses.append(loss.detach())
            watch.step(len(labels), losses[-1], lr)
        state.history.append(_record(state, job, rates, torch.stack(losses).tolist(), started))
        yield state.history[-1]


def _record(
    state: State, job: Job, rates: list[float], losses: list[float], started: float
) -> Epoch:
    """Judge an epoch that has just ended, and return its record."""
    seconds = time.perf_counter() - started
    judged, info = job.judged, job.info
    mean_loss = sum(losses) / len(losses)
    if not math.isfinite(mean_loss):
        raise UserError(
            f"The loss is no longer finite in epoch {state.epoch + 1}: lower --lr "
            f"(now {job.config.lr:g}), or set --clip-value."
        )
    validation = {}
    if len(judged):
        logits = predict_logits(state.model, judged.images, info)
        validation = measure(logits, judged.labels, info.parents)
    return Epoch(
        epoch=state.epoch + 1,
        seconds=seconds,
        validation=validation,
        validation_seconds=time.perf_counter() - started - seconds,
        images_per_second=len(job.training) / seconds,
        train_loss=mean_loss,
        lr=rates,
        loss=losses,
    )


def training_size(config: Config, step: int, steps: int) -> int:
    """Return the side of the training pictures at a step, or 0 for full size."""
    return config.sizes[len(config.sizes) * step // steps] if config.sizes else 0


def uses_bfloat16(config: Config, device: torch.device) -> bool:
    """Return whether the forward pass runs under bfloat16 autocast."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def train(config: Config, dataset: Dataset | None = None, *, quiet: bool = False) -> Run:
    """Train a classifier and write its run directory.

    Args:
        config: what to do; see `recipes` for ready ones.
        dataset: the pictures; None loads what `config.data` names.
        quiet: print nothing.

    Returns:
        The finished run. The test split is read once, at the end (and after each epoch where
        `config.validate_on` says so).

    Raises:
        UserError: the configuration does not fit the data or the machine, or a file cannot be
            read or written.
        KeyboardInterrupt: interrupted; the finished epochs are in the run directory.
    """
    display, device = Display(quiet), pick_device(config.device)
    dataset = dataset or load_data(config.data, display.note)
    digest = dataset.digest()
    dataset = dataset.with_labels(config.labels)
    config = dataclasses.replace(config, data=dataset.source)
    job = make_job(config, dataset, device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), display:
        started = time.perf_counter()
        state = first_state(job)
        run = new_run(config)
        run.start(config, job.info, describe(device, digest))
        display.start(run, config, _header(job, state.model), job.steps)
        try:
            for epoch in epochs(state, job, display):
                run.save_epoch(state.to_resume())
                display.epoch(epoch)
        except KeyboardInterrupt:
            display.note(f"{len(run.history)} finished epochs are kept in {run}.")
            raise
        metrics = _finish(run, state, job, dataset.test, started)
    display.summary(run, metrics)
    return run


def _header(job: Job, model: nn.Module) -> list[str]:
    """Return what is about to be trained on what, in lines."""
    config = job.config
    judged = f", {len(job.judged):,} {config.validate_on}" if len(job.judged) else ""
    where = device_name(job.device)
    if job.device.type == "cpu":
        where += f", {torch.get_num_threads()} threads"
    return [
        f"{config.data}: {len(job.training):,} training{judged} pictures, "
        f"{len(job.info.classes)} {config.labels} classes",
        f"{config.model}: {count_parameters(model) / 1e6:.2f} M parameters, "
        f"{config.epochs} epochs of {job.steps // config.epochs} steps, seed {config.seed}",
        where,
    ]


def _finish(run: Run, state: State, job: Job, test: Split, started: float) -> dict[str, Any]:
    """Read the test split, write the final metrics and the curves; return the metrics."""
    test_started = time.perf_counter()
    metrics, tensors = measure_model(state.model, test, job.info)
    now = time.perf_counter()
    train_seconds = sum(epoch.seconds for epoch in state.history)
    metrics |= {
        "validated_on": job.config.validate_on if len(job.judged) else None,
        "seconds": now - started,
        "train_seconds": train_seconds,
        "validation_seconds": sum(epoch.validation_seconds for epoch in state.history),
        "test_seconds": now - test_started,
        "images_per_second": len(job.training) * len(state.history) / train_seconds,
    }
    run.finish(metrics, tensors)
    draw_curves(run)
    return metrics
