"""What stays the same during training."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hundredfold.augment import balanced_weights
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset, Split, hold_out
from hundredfold.models.architectures import MODELS
from hundredfold.models.build import build_model
from hundredfold.models.info import ModelInfo
from hundredfold.models.installed import INSTALLED, can_fold
from hundredfold.models.timm import HUB, normalisation
from hundredfold.support.device import has_matrix_units, pick_device
from hundredfold.support.distributed import SINGLE_PROCESS, Processes
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.training.fitting import balanced, fitted

SAFE_SIDE = 16
"""Side in pixels from which all own networks can be trained, if it is at least half of the full
side, on which the stride of the stem depends."""


@dataclass(frozen=True)
class Setup:
    """What stays the same during training."""

    config: Config
    info: ModelInfo
    train_split: Split
    """Training pictures, on the training device unless they are too large for it."""
    validation_split: Split
    """Pictures on which each epoch is evaluated; may be empty. They are the test split if
    `Config.validate_on` says so."""
    device: torch.device
    """Device to train on."""
    processes: Processes = SINGLE_PROCESS
    """The processes that train together."""

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor]:
        """(3,) mean and (3,) standard deviation of the channels, on the device."""
        mean, std = self.info.mean, self.info.std
        return torch.tensor(mean, device=self.device), torch.tensor(std, device=self.device)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Side of the training pictures in each phase of the run, in pixels."""
        sizes, side = self.config.sizes, self.info.side
        return (*(2 * round(size * side / sizes[-1] / 2) for size in sizes[:-1]), side)

    @cached_property
    def class_weights(self) -> Tensor | None:
        """(C,) weight of each class in the loss, on the device; None if all weigh the same."""
        if self.config.balance != "loss":
            return None
        return balanced_weights(self.train_split.labels, len(self.info.classes)).to(self.device)

    @property
    def balances_head(self) -> bool:
        """Whether classes are balanced in fitting a head, always by their weight in the loss."""
        return self.config.balance in ("loss", "sampling")

    @property
    def mixed(self) -> bool:
        """Whether the forward pass runs under bfloat16 autocast."""
        return self.config.precision == "bfloat16"

    @cached_property
    def uses_cuda_graphs(self) -> bool:
        """Whether steps are recorded and replayed (cuda_graphs.py)."""
        supported = self.config.optimizer == "muon" and self.config.model in MODELS
        return self.device.type == "cuda" and self.processes.size == 1 and supported

    @property
    def epoch_pictures(self) -> int:
        """Number of pictures in a full epoch: a single remaining picture is left out."""
        count, batch = len(self.train_split), self.config.batch_size
        return min(count, count_steps(count, batch) * batch)

    @property
    def steps(self) -> int:
        """Number of steps in all epochs; 0 if only the head is trained."""
        steps = count_steps(len(self.train_split), self.config.batch_size)
        return max(1, round(self.config.epochs * steps)) if self.config.epochs else 0

    def share_of(self, steps: int) -> float:
        """Return the share of the schedule (0..1) that a number of steps is."""
        return steps / self.steps if self.steps else 1.0


def as_recorded(config: Config, dataset: Dataset) -> Config:
    """Return a configuration as a run on a dataset records it.

    The paths of the data and the weights are absolute, so that they are found from any folder. The
    fit is that of the dataset if the configuration leaves it open. The balance of the classes and
    the precision are decided, so that the run can be continued on another machine.

    Raises:
        UserError: this machine does not have the device.
    """
    config = balanced(config, dataset.train.labels)
    is_file = config.weights not in ("", HUB, INSTALLED)
    weights = str(expanded(config.weights).resolve()) if is_file else config.weights
    fit = dataset.fit if config.fit == "auto" else config.fit
    config = replace(config, data=dataset.source, weights=weights, fit=fit)
    return with_precision(config, pick_device(config.device))


def with_precision(config: Config, device: torch.device) -> Config:
    """Return a configuration that names the precision: the faster one, if it leaves that open.

    A CPU without matrix units takes longer in bfloat16, and pretrained networks were not measured.
    """
    if config.precision != "auto":
        return config
    if device.type == "cuda":
        with torch.cuda.device(device):
            lower = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        lower = device.type == "cpu" and config.model in MODELS and has_matrix_units()
    return replace(config, precision="bfloat16" if lower else "float32")


def split_dataset(dataset: Dataset, config: Config) -> tuple[Split, Split]:
    """Return the training split and the validation split, which may be empty."""
    train, validation = dataset.train, dataset.validation
    if validation is None:
        train, validation = hold_out(train, config.validation, config.seed)
    return train, dataset.test if config.validate_on == "test" else validation


def require_validation(validation: Split, config: Config) -> None:
    """Check that a validation split has pictures.

    Raises:
        UserError: it has none.
    """
    if not len(validation):
        why = _nothing_held_out(config)
        raise UserError(f"{why} Use a larger share, such as 0.2, or add pictures.")


def validation_remarks(setup: Setup, dataset: Dataset) -> list[str]:
    """Return sentences if validation pictures are missing, or are there but are not used."""
    config, own = setup.config, dataset.validation is not None
    if own and config.validate_on == "test":
        return ["The validation pictures of the data are not used, because of --validate-on test."]
    if own and not config.validation:
        return ["The data has validation pictures of its own, so --validation 0 has no effect."]
    if config.validation and not len(setup.validation_split):
        return [f"{_nothing_held_out(config)} So the probabilities are not calibrated."]
    return []


def _nothing_held_out(config: Config) -> str:
    return (
        f"With --validation {config.validation:g}, no picture can be held out, because every class "
        "is too small for this share or consists of related pictures."
    )


def make_setup(
    config: Config, dataset: Dataset, device: torch.device, processes: Processes = SINGLE_PROCESS
) -> Setup:
    """Adapt a configuration to a dataset, split the dataset and measure its channels.

    Raises:
        UserError: the configuration does not fit the data.
    """
    if config.budget and processes.size > 1:
        raise UserError(
            "--budget works only if a single process trains. With several processes, use --epochs."
        )
    side = dataset.train.store.shape[-1]
    if 0 < config.size < side:
        raise UserError(f"--size is {config.size}, but the pictures have {side} pixels a side.")
    if config.fit not in ("auto", dataset.fit):
        raise UserError(
            f"--fit is {config.fit}, but the pictures were made square by {dataset.fit}: load them "
            f"with fit={config.fit!r}."
        )
    config = balanced(fitted(config, len(dataset.train)), dataset.train.labels)
    config = with_precision(config, device)
    train, validation = split_dataset(dataset, config)
    train = train.to(device)
    mean, std = train.channel_stats()
    std = tuple(max(value, 1 / 255) for value in std)  # a channel may be constant
    levels = bool(config.weights) and can_fold(config.model)
    info = ModelInfo(
        model=config.model,
        widths=config.widths,
        batch_norm=config.batch_norm and not levels,
        levels=levels,
        residual=config.residual,
        labels=config.labels,
        classes=dataset.classes,
        superclasses=dataset.superclasses,
        parents=dataset.parents,
        image_size=side,
        input_size=config.size if config.size > side else 0,
        fit=dataset.fit,
        mean=mean,
        std=std,
    )
    if config.weights:
        info = normalisation(info)
    setup = Setup(config, info, train, validation, device, processes)
    _refuse_small_pictures(setup)
    if config.compile and not setup.uses_cuda_graphs:
        raise UserError(
            "--compile needs one CUDA GPU, --optimizer muon, and the model resnet9, whitenet or "
            "whiteresnet. The tutorial's recipes, probe and finetune use another optimizer. Omit "
            "--compile."
        )
    return setup


def _refuse_small_pictures(setup: Setup) -> None:
    """Check that the network can be trained on the smallest pictures of the schedule.

    Raises:
        UserError: it cannot.
    """
    side, info = min(setup.sizes), setup.info
    own = info.model in MODELS and 2 * side >= info.side
    if side >= SAFE_SIDE and (own or can_fold(info.model)):
        return
    try:
        build_model(info)(torch.zeros(2, 3, side, side))
    except (RuntimeError, AssertionError) as error:
        if side == info.side:
            raise UserError(
                f"{info.model} cannot be trained on pictures of {side} px. Use another --size."
            ) from error
        raise UserError(
            f"--sizes {' '.join(map(str, setup.config.sizes))} begins with pictures of {side} px, "
            f"because sizes are scaled so that the last is {info.side} px. {info.model} cannot be "
            "trained on pictures that small: begin with a larger size."
        ) from error


def count_steps(pictures: int, batch_size: int) -> int:
    """Return the number of batches per epoch. The last may be smaller, but not a single picture.

    Raises:
        UserError: there are fewer than two pictures, and batch normalisation needs two.
    """
    if pictures < 2:
        raise UserError(f"Training needs at least 2 pictures, and there are {pictures}.")
    full, rest = divmod(pictures, batch_size)
    return full + (rest > 1)


def batch_at(step: int, pictures: int, batch_size: int) -> slice:
    """Return the places of batch number `step` (from 0) in the order of an epoch."""
    return slice(step * batch_size, min((step + 1) * batch_size, pictures))
