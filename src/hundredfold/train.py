"""Training: one loop for CPU, CUDA and MPS, one record an epoch, one run directory."""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import channel_stats, generator, prepare
from hundredfold.batches import batches, count_steps
from hundredfold.config import Config
from hundredfold.data import Dataset, Split, hold_out, load_data
from hundredfold.display import Display
from hundredfold.environment import describe, device_name
from hundredfold.errors import UserError
from hundredfold.evaluate import test_model
from hundredfold.inference import predict_logits
from hundredfold.metrics import measure
from hundredfold.models import ModelInfo, WhiteNet, build_model, count_parameters
from hundredfold.optim import build_optimizer, lookahead_, lookahead_decay, set_schedule
from hundredfold.report import draw_curves
from hundredfold.run import Epoch, Run, new_run

WHITENING_PICTURES = 1000
"""Their 900,000 patches settle the stem's 27 x 27 covariance to a fraction of a percent."""


@dataclass(frozen=True)
class Setup:
    """All that stays the same while training."""

    config: Config
    info: ModelInfo
    training: Split
    """On the device to train on."""
    judged: Split
    """Pictures to judge each epoch by; may be empty."""

    @property
    def device(self) -> torch.device:
        """The device to train on."""
        return self.training.images.device

    @property
    def steps(self) -> int:
        """Steps of all epochs together."""
        return self.config.epochs * count_steps(len(self.training), self.config.batch_size)


@dataclass
class State:
    """All that changes while training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    slow: dict[str, Tensor]
    """The lookahead's slow weights; empty without one."""
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of all epochs."""
    history: list[Epoch] = field(default_factory=list)

    def to_resume(self) -> dict[str, Any]:
        """Return what another process would need to go on from here, as plain tensors and values.

        The order of the pictures and their augmentation follow from the seed and the epoch; only
        dropout draws from torch's own generator.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "slow": self.slow,
            "epoch": self.epoch,
            "step": self.step,
            "generator": torch.get_rng_state(),
        }


class Watcher(Protocol):
    """What is told of every step while training."""

    def step(self, pictures: int, loss: Tensor, lr: float) -> None:
        """Take the number of pictures, the loss (0-dimensional, on its device), the rate."""


def epochs(state: State, setup: Setup, watch: Watcher) -> Iterator[Epoch]:
    """Train from where `state` stands to the last epoch; yield a record of each.

    Args:
        state: changed in place.
        setup: what to train on, and how.
        watch: told of every step.

    Raises:
        UserError: the loss is no longer finite.
    """
    config, device = setup.config, setup.device
    model, optimizer = state.model, state.optimizer
    mean, std = (
        torch.tensor(values, device=device) for values in (setup.info.mean, setup.info.std)
    )
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    while state.epoch < config.epochs:
        started, rates, losses = time.perf_counter(), [], []
        model.train()
        for images, labels in batches(setup.training, state.epoch, config):
            x = prepare(images, mean, std, training_size(config, state.step, setup.steps))
            with mixed:
                loss = F.cross_entropy(model(x), labels, label_smoothing=config.label_smoothing)
            lr = set_schedule(optimizer, state.step, setup.steps, config)
            optimizer.zero_grad()
            loss.backward()
            if config.clip_value:
                nn.utils.clip_grad_value_(trainable, config.clip_value)
            optimizer.step()
            if (decay := lookahead_decay(state.step, setup.steps, config)) is not None:
                lookahead_(state.slow, model, decay)
            state.step += 1
            rates.append(lr)
            losses.append(loss.detach())
            watch.step(len(labels), losses[-1], lr)
        state.epoch += 1
        state.history.append(_record(state, setup, rates, torch.stack(losses).tolist(), started))
        yield state.history[-1]


def _record(
    state: State, setup: Setup, rates: list[float], losses: list[float], started: float
) -> Epoch:
    """Judge an epoch that has just ended, and return its record."""
    seconds = time.perf_counter() - started
    judged, info = setup.judged, setup.info
    mean_loss = sum(losses) / len(losses)
    if not math.isfinite(mean_loss):
        raise UserError(
            f"The loss is no longer finite in epoch {state.epoch}: lower --lr "
            f"(now {setup.config.lr:g}), or set --clip-value."
        )
    validation = {}
    if len(judged):
        logits = predict_logits(state.model, judged.images, info)
        validation = measure(logits, judged.labels, info.parents)
    return Epoch(
        epoch=state.epoch,
        seconds=seconds,
        validation=validation,
        validation_seconds=time.perf_counter() - started - seconds,
        images_per_second=len(setup.training) / seconds,
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


def pick_device(name: str) -> torch.device:
    """Return the device of a name; auto is CUDA, else MPS, else the CPU.

    Raises:
        UserError: no device of that name, or not on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is none of auto, cpu, cuda, cuda:N, mps.") from error
    here = {
        "cpu": True,
        "cuda": cuda and (device.index or 0) < torch.cuda.device_count(),
        "mps": mps,
    }
    if not here.get(device.type, False):
        raise UserError(f"--device {name} is not on this machine: try --device auto.")
    return device


def prepare_setup(config: Config, dataset: Dataset, device: torch.device) -> Setup:
    """Split the dataset and work out how its pictures are prepared.

    Raises:
        UserError: the configuration does not fit the data.
    """
    side = dataset.train.images.shape[-1]
    if config.sizes and config.sizes[-1] != side:
        raise UserError(f"--sizes ends with {config.sizes[-1]}, but must end with {side} pixels.")
    training, judged = hold_out(dataset.train, config.validation, config.seed)
    if config.validate_on == "test":
        judged = dataset.test
    mean, std = channel_stats(training.images)
    info = ModelInfo(
        model=config.model,
        widths=config.widths,
        labels=config.labels,
        classes=dataset.classes,
        superclasses=dataset.superclasses,
        parents=dataset.parents,
        image_size=side,
        mean=mean,
        std=std,
    )
    return Setup(config, info, training.to(device), judged)


def first_state(setup: Setup) -> State:
    """Return the state before the first step, from the seed alone."""
    config, info = setup.config, setup.info
    torch.manual_seed(config.seed)
    model = build_model(info.model, len(info.classes), info.widths)
    if isinstance(model, WhiteNet):
        rng = generator(config.seed, "whitening")
        chosen = torch.randperm(len(setup.training), generator=rng)[:WHITENING_PICTURES]
        images = setup.training.images[chosen.to(setup.device)].cpu()
        model.whiten_(prepare(images, torch.tensor(info.mean), torch.tensor(info.std)))
    model = model.to(setup.device).to(memory_format=torch.channels_last)
    slow = {name: value.clone() for name, value in model.state_dict().items()}
    return State(model, build_optimizer(model, config), slow if config.lookahead else {})


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
    setup = prepare_setup(config, dataset, device)
    run = new_run(config)
    run.start(config, setup.info, describe(device, digest))
    with torch.random.fork_rng([device] if device.type == "cuda" else []), display:
        started = time.perf_counter()
        state = first_state(setup)
        display.start(run, config, _header(setup, state.model), setup.steps)
        try:
            for epoch in epochs(state, setup, display):
                run.save_epoch(state.history, state.model.state_dict(), state.to_resume())
                display.epoch(epoch)
        except KeyboardInterrupt:
            display.note(f"{len(run.history)} finished epochs are kept in {run}.")
            raise
        metrics = _finish(run, state, setup, dataset.test, started)
    display.summary(run, metrics)
    return run


def _header(setup: Setup, model: nn.Module) -> list[str]:
    """Return what is about to be trained on what, in lines."""
    config = setup.config
    judged = f", {len(setup.judged):,} {config.validate_on}" if len(setup.judged) else ""
    where = device_name(setup.device)
    if setup.device.type == "cpu":
        where += f", {torch.get_num_threads()} threads"
    return [
        f"{config.data}: {len(setup.training):,} training{judged} pictures, "
        f"{len(setup.info.classes)} {config.labels} classes",
        f"{config.model}: {count_parameters(model) / 1e6:.2f} M parameters, "
        f"{config.epochs} epochs of {setup.steps // config.epochs} steps, seed {config.seed}",
        where,
    ]


def _finish(run: Run, state: State, setup: Setup, test: Split, started: float) -> dict[str, Any]:
    """Read the test split, write the final metrics and the curves; return the metrics."""
    test_started = time.perf_counter()
    metrics, tensors = test_model(state.model, test, setup.info)
    now = time.perf_counter()
    train_seconds = sum(epoch.seconds for epoch in state.history)
    metrics |= {
        "validated_on": setup.config.validate_on if len(setup.judged) else None,
        "seconds": now - started,
        "train_seconds": train_seconds,
        "validation_seconds": sum(epoch.validation_seconds for epoch in state.history),
        "test_seconds": now - test_started,
        "images_per_second": len(setup.training) * len(state.history) / train_seconds,
    }
    run.finish(metrics, tensors)
    draw_curves(run)
    return metrics
