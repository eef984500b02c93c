"""A training before its first step: what stays the same, and what will change."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hundredfold.augment import channel_stats, class_weights, generator, prepare
from hundredfold.batches import count_steps
from hundredfold.config import Config
from hundredfold.data import Dataset, Split, hold_out
from hundredfold.device import memory_format
from hundredfold.errors import UserError
from hundredfold.models import ModelInfo, WhiteNet, build_model, normalisation
from hundredfold.optim import build_optimizer
from hundredfold.run import Epoch

WHITENING_PICTURES = 1000
"""Their 900,000 patches settle the stem's 27 x 27 covariance to a fraction of a percent."""


@dataclass(frozen=True)
class Job:
    """All that stays the same while training."""

    config: Config
    info: ModelInfo
    training: Split
    """On the device to train on, unless it is too large."""
    judged: Split
    """Pictures to judge each epoch by; may be empty."""
    device: torch.device
    """The device to train on."""

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor]:
        """(3,) mean and (3,) standard deviation a channel, on the device."""
        mean, std = self.info.mean, self.info.std
        return torch.tensor(mean, device=self.device), torch.tensor(std, device=self.device)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Side of the training pictures over equal parts of the run, the full size last."""
        side, sizes = self.info.image_size, self.config.sizes
        return (*(2 * round(size * side / sizes[-1] / 2) for size in sizes[:-1]), side)

    @cached_property
    def class_weights(self) -> Tensor | None:
        """(C,) weight of each class in the loss, on the device; None where all weigh the same."""
        if self.config.balance != "loss":
            return None
        return class_weights(self.training.labels, len(self.info.classes)).to(self.device)

    @cached_property
    def mixed(self) -> bool:
        """Whether the forward pass runs under bfloat16 autocast."""
        return uses_bfloat16(self.config, self.device)

    @property
    def steps(self) -> int:
        """Steps of all epochs together."""
        steps = count_steps(len(self.training), self.config.batch_size)
        return max(1, round(self.config.epochs * steps))


@dataclass
class State:
    """All that changes while training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Finished steps of all epochs."""
    progress: float = 0.0
    """Share of the schedule that is done (0..1)."""
    history: list[Epoch] = field(default_factory=list)
    judged_logits: Tensor | None = None
    """(N, C) float32, of the pictures that the last epoch was judged by."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def to_resume(self) -> dict[str, Any]:
        """Return what another process would need to go on from here, as plain tensors and values.

        The order of the pictures and their augmentation follow from the seed and the epoch; only
        dropout draws from torch's own generator.
        """
        device = next(self.model.parameters()).device
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "progress": self.progress,
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "generator": torch.get_rng_state(),
            "device_generator": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }


def uses_bfloat16(config: Config, device: torch.device) -> bool:
    """Return whether a device's forward pass runs under bfloat16 autocast."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def training_and_judged(dataset: Dataset, config: Config) -> tuple[Split, Split]:
    """Return the pictures to train on, and those to judge each epoch by, which may be none."""
    training, judged = dataset.train, dataset.validation
    if judged is None:
        training, judged = hold_out(training, config.validation, config.seed)
    return training, dataset.test if config.validate_on == "test" else judged


def make_job(config: Config, dataset: Dataset, device: torch.device) -> Job:
    """Split the dataset and work out how its pictures are prepared.

    Raises:
        UserError: the configuration does not fit the data.
    """
    side = dataset.train.store.shape[-1]
    if config.size not in (0, side):
        raise UserError(f"--size is {config.size}, but the pictures have {side} pixels a side.")
    training, judged = training_and_judged(dataset, config)
    mean, std = channel_stats(training.parts())
    std = tuple(max(value, 1 / 255) for value in std)  # a channel may be the same everywhere
    info = ModelInfo(
        model=config.model,
        widths=config.widths,
        batch_norm=config.batch_norm,
        residual=config.residual,
        labels=config.labels,
        classes=dataset.classes,
        superclasses=dataset.superclasses,
        parents=dataset.parents,
        image_size=side,
        mean=mean,
        std=std,
    )
    if config.weights:
        info = normalisation(info)
    return Job(config, info, training.to(device), judged, device)


def first_state(job: Job) -> State:
    """Return the state before the first step, from the seed alone."""
    config, info = job.config, job.info
    torch.manual_seed(config.seed)
    model = build_model(info, config.weights)
    if isinstance(model, WhiteNet):
        rng = generator(config.seed, "whitening")
        chosen = torch.randperm(len(job.training), generator=rng)[:WHITENING_PICTURES]
        images = job.training[chosen.to(job.training.store.device)].store.cpu()
        model.whiten_(prepare(images, torch.tensor(info.mean), torch.tensor(info.std)))
    model = model.to(job.device).to(memory_format=memory_format(job.device))
    return State(model, build_optimizer(model, config))
