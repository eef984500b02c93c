"""What changes during training, and how it goes to a checkpoint and back."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hundredfold.augment import generator, prepare
from hundredfold.models.build import build_model
from hundredfold.models.timm import freeze_layers
from hundredfold.runs.checkpoints import (
    MODEL_PREFIX,
    Checkpoint,
    ClockState,
    PartialEpoch,
    with_prefix,
)
from hundredfold.runs.epoch import Epoch, HeadRecord
from hundredfold.support.device import placed
from hundredfold.support.errors import UserError
from hundredfold.training.cuda_graphs import Recorder
from hundredfold.training.head import fit_head
from hundredfold.training.optim import build_optimizer
from hundredfold.training.setup import Setup
from hundredfold.training.sync_batch_norm import synchronise

SLOW_PREFIX = "slow."
VALIDATION_LOGITS = "validation_logits"
INITIAL_PICTURES = 1000
"""Number of pictures that a model may initialise itself from. Their 900,000 patches determine the
27 x 27 covariance of the whitening stem to a fraction of a percent."""


@dataclass
class State:
    """What changes during training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    slow: dict[str, Tensor] = field(default_factory=dict)
    """Slow weights and running statistics of lookahead, by name; empty without lookahead."""
    steps_done: int = 0
    """Number of finished steps in all epochs."""
    progress: float = 0.0
    """Share of the schedule that is done (0..1)."""
    history: list[Epoch] = field(default_factory=list)
    """Records of the finished epochs."""
    partial_epoch: PartialEpoch = field(default_factory=PartialEpoch)
    """Record of the current epoch."""
    pending_losses: list[Tensor] = field(default_factory=list)
    """Losses of the last steps, which a GPU may still be computing; not in `partial_epoch` yet."""
    recorder: Recorder = field(default_factory=Recorder)
    """Replays steps on a GPU."""
    head: HeadRecord | None = None
    """How the head of a pretrained model was fitted; None in another model."""
    validation_logits: Tensor | None = None
    """(N, C) float32 logits of the validation split after the last epoch; before the first one,
    those that `fit_head` returns. Only these are in a checkpoint, because the head may have been
    fitted to the validation split since."""

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint; they are not copied.

        The order of the pictures and their augmentation follow from the seed and the epoch. Only
        dropout uses torch's own generators.
        """
        tensors = {MODEL_PREFIX + name: value for name, value in self.model.state_dict().items()}
        for prefix, _, values in self._optimizer_states():
            tensors |= {prefix + key: value for key, value in values.items() if value is not None}
        tensors |= {SLOW_PREFIX + name: value for name, value in self.slow.items()}
        if self.validation_logits is not None and not self.history:
            tensors[VALIDATION_LOGITS] = self.validation_logits
        tensors["generator"] = torch.get_rng_state()
        device = next(self.model.parameters()).device
        if device.type == "cuda":
            tensors["device_generator"] = torch.cuda.get_rng_state(device)
        return tensors

    def checkpoint(
        self, setup: Setup, elapsed: float = 0.0, clock: ClockState | None = None
    ) -> Checkpoint:
        """Return a checkpoint of this state; its tensors are not copied.

        Args:
            setup: what stays the same during training.
            elapsed: time in seconds that the run has taken so far.
            clock: the clock of a run with a time budget.
        """
        self.collect_losses()
        return Checkpoint(
            config=setup.config,
            info=setup.info,
            steps_done=self.steps_done,
            progress=self.progress,
            history=list(self.history),
            partial_epoch=copy.deepcopy(self.partial_epoch),
            elapsed=elapsed,
            clock=clock,
            head=self.head,
            tensors=self.tensors,
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore the state in a checkpoint, including torch's generators.

        Raises:
            UserError: the checkpoint belongs to another model.
        """
        tensors = checkpoint.tensors
        self.steps_done, self.progress = checkpoint.steps_done, checkpoint.progress
        self.history, self.head = list(checkpoint.history), checkpoint.head
        self.partial_epoch = copy.deepcopy(checkpoint.partial_epoch)
        self.pending_losses.clear()
        self.recorder = Recorder()  # a recorded step refers to the former tensors
        try:
            self.model.load_state_dict(checkpoint.weights())
            for prefix, weight, values in self._optimizer_states():
                stored = with_prefix(prefix, tensors)
                values |= {key: _like(weight, value) for key, value in stored.items()}
            stored = with_prefix(SLOW_PREFIX, tensors)
            self.slow = {name: _like(value, stored[name]) for name, value in self.slow.items()}
            self.validation_logits = tensors.get(VALIDATION_LOGITS)
            torch.set_rng_state(tensors["generator"])
            if "device_generator" in tensors and torch.cuda.is_available():
                device = next(self.model.parameters()).device
                torch.cuda.set_rng_state(tensors["device_generator"], device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"The checkpoint belongs to another model or version: {error}"
            ) from error

    def collect_losses(self) -> None:
        """Wait for the pending losses, and add them to the record of the epoch."""
        if self.pending_losses:
            self.partial_epoch.loss += torch.stack(self.pending_losses).tolist()
            self.pending_losses.clear()

    def _optimizer_states(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        """Yield a prefix of names, a weight, and the optimizer's state of it, to read or set."""
        weights = (w for group in self.optimizer.param_groups for w in group["params"])
        for number, weight in enumerate(weights):
            yield f"optimizer.{number}.", weight, self.optimizer.state[weight]


def first_state(setup: Setup, *, pretrained: bool = True) -> State:
    """Return the state before the first step, which depends only on the setup.

    Args:
        setup: what stays the same during training.
        pretrained: load the pretrained weights that the configuration names, and fit the head.
    """
    config, info = setup.config, setup.info
    torch.manual_seed(config.seed)
    model = build_model(info, config.weights if pretrained else "")
    if initialise := getattr(model, "initialise_from", None):
        rng = generator(config.seed, "whitening")
        chosen = torch.randperm(len(setup.train_split), generator=rng)[:INITIAL_PICTURES]
        images = setup.train_split[chosen.to(setup.train_split.store.device)].images.cpu()
        initialise(prepare(images, torch.tensor(info.mean), torch.tensor(info.std), info.side))
    model = placed(model, setup.device)
    head, logits = fit_head(model, setup) if config.weights and pretrained else (None, None)
    if config.frozen:
        freeze_layers(model, config.frozen)
    setup.processes.broadcast_model(model)
    if config.sync_batch_norm and setup.processes.size > 1:
        synchronise(model, setup.processes)
    slow = _slow(model) if config.lookahead else {}
    optimizer = build_optimizer(model, config)
    progress = setup.share_of(0)
    return State(model, optimizer, slow, progress=progress, head=head, validation_logits=logits)


def _slow(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's weights and running statistics, by name."""
    state = model.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """Return a value on the device of a weight, and in the same memory order.

    Sums round in the same way only in the same memory order.
    """
    if value.shape != weight.shape:
        return value.to(weight.device)
    return torch.empty_like(weight, requires_grad=False).copy_(value)
