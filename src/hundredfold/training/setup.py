"""What stays the same while training."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hundredfold.augment import channel_stats, class_weights
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset, Split, hold_out
from hundredfold.models.architectures import MODELS
from hundredfold.models.info import ModelInfo
from hundredfold.models.timm import normalisation
from hundredfold.recipes import fitted
from hundredfold.support.device import keep_memory
from hundredfold.support.distributed import ALONE, Processes
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.training.batches import count_steps


@dataclass(frozen=True)
class Setup:
    """All that stays the same while training."""

    config: Config
    info: ModelInfo
    training: Split
    """On the device to train on, unless it is too large."""
    judged: Split
    """Pictures to judge each epoch by; may be empty."""
    device: torch.device
    """The device to train on."""
    processes: Processes = ALONE
    """The processes that train together."""

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

    @cached_property
    def recorded(self) -> bool:
        """Whether steps are recorded and replayed, as graphs.py does."""
        ours = self.config.optimizer == "muon" and self.config.model in MODELS
        return self.device.type == "cuda" and self.processes.size == 1 and ours

    @property
    def epoch_pictures(self) -> int:
        """Pictures that a whole epoch trains on: a batch is never of a single one."""
        count, batch = len(self.training), self.config.batch_size
        return min(count, count_steps(count, batch) * batch)

    @property
    def steps(self) -> int:
        """Steps of all epochs together."""
        steps = count_steps(len(self.training), self.config.batch_size)
        return max(1, round(self.config.epochs * steps))


def as_recorded(config: Config, dataset: Dataset) -> Config:
    """Return a configuration as a run on a dataset records it.

    It says where data and weights are, whichever folder a later command is called in.
    """
    path = expanded(config.weights)
    weights = str(path.resolve()) if config.weights and path.is_file() else config.weights
    return replace(config, data=dataset.source, weights=weights)


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


def refuse_unjudged(judged: Split, config: Config) -> None:
    """Refuse to go on where there is no picture to judge by.

    Raises:
        UserError: there is none.
    """
    if not len(judged):
        raise UserError(
            f"--validation {config.validation:g} of each class is no picture here: give it more, "
            "such as 0.2."
        )


def make_setup(
    config: Config, dataset: Dataset, device: torch.device, processes: Processes = ALONE
) -> Setup:
    """Fit the recipe to the dataset, split that and work out how its pictures are prepared.

    Raises:
        UserError: the configuration does not fit the data.
    """
    if config.budget and processes.size > 1:
        raise UserError("--budget follows the clock of one process: name --epochs instead.")
    if device.type == "cpu":
        keep_memory()
    side = dataset.train.store.shape[-1]
    if config.size not in (0, side):
        raise UserError(f"--size is {config.size}, but the pictures have {side} pixels a side.")
    config = fitted(config, len(dataset.train))
    training, judged = training_and_judged(dataset, config)
    training = training.to(device)
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
    setup = Setup(config, info, training, judged, device, processes)
    if config.compile and not setup.recorded:
        raise UserError(
            "--compile is for one CUDA GPU and --optimizer muon, which the tutorial's recipes and "
            "finetune don't have: leave it out."
        )
    return setup
