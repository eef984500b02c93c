"""All that changes while training: where it stands, and its way to disk and back."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hundredfold.augment import generator, prepare
from hundredfold.models.build import build_model
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import MODEL_PREFIX
from hundredfold.support.device import memory_format
from hundredfold.support.errors import UserError
from hundredfold.support.jsonio import from_values
from hundredfold.training.cuda_graphs import Recorder
from hundredfold.training.optim import build_optimizer
from hundredfold.training.setup import Setup

SLOW_PREFIX = "slow."
INITIAL_PICTURES = 1000
"""Number of pictures that a model may initialise itself from. Their 900,000 patches determine the
27 x 27 covariance of the whitening stem to a fraction of a percent."""


@dataclass
class Part:
    """What the steps of an epoch that has not ended yet leave."""

    pictures: int = 0
    seconds: float = 0.0
    lr: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


@dataclass
class State:
    """All that changes while training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    slow: dict[str, Tensor] = field(default_factory=dict)
    """Lookahead's weights and running statistics, by name; empty without it."""
    step: int = 0
    """Finished steps of all epochs."""
    progress: float = 0.0
    """Share of the schedule that is done (0..1)."""
    history: list[Epoch] = field(default_factory=list)
    part: Part = field(default_factory=Part)
    """The epoch that has begun."""
    pending: list[Tensor] = field(default_factory=list)
    """Losses of its last steps, which a GPU may still be working on; not in `part` yet."""
    recorder: Recorder = field(default_factory=Recorder)
    """Replays the steps on a GPU."""
    judged_logits: Tensor | None = None
    """(N, C) float32, of the pictures that the last epoch was judged by; not kept on disk, for they
    follow from the model."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What another process would need to go on from here, with `facts`.

        The order of the pictures and their augmentation follow from the seed and the epoch; only
        dropout draws from torch's own generators.
        """
        found = {MODEL_PREFIX + name: value for name, value in self.model.state_dict().items()}
        for name, _, values in self._optimizer_states():
            found |= {name + key: value for key, value in values.items() if value is not None}
        found |= {SLOW_PREFIX + name: value for name, value in self.slow.items()}
        found["generator"] = torch.get_rng_state()
        device = next(self.model.parameters()).device
        if device.type == "cuda":
            found["device_generator"] = torch.cuda.get_rng_state(device)
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """The same, of what JSON can hold."""
        self.settle()
        return {
            "step": self.step,
            "progress": self.progress,
            "part": dataclasses.asdict(self.part),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
        }

    def settle(self) -> None:
        """Wait for the pending losses, and add them to the epoch's."""
        if self.pending:
            self.part.loss += torch.stack(self.pending).tolist()
            self.pending.clear()

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Become the state that had these `tensors` and `facts`; torch's generators as well.

        Raises:
            UserError: they are those of another model.
        """
        try:
            self.step, self.progress = int(facts["step"]), float(facts["progress"])
            if not (0 <= self.progress <= 1 and self.step >= 0):
                raise ValueError(f"a progress of {self.progress}, a step of {self.step}")
            self.part = from_values(Part, facts["part"], "The checkpoint's part")
            self.history = [from_values(Epoch, r, "Its history") for r in facts["history"]]
            self.model.load_state_dict(_below(MODEL_PREFIX, tensors))
            for name, weight, values in self._optimizer_states():
                kept = _below(name, tensors)
                values |= {key: _like(weight, value) for key, value in kept.items()}
            kept = _below(SLOW_PREFIX, tensors)
            self.slow = {name: _like(value, kept[name]) for name, value in self.slow.items()}
            self.pending.clear()
            self.recorder = Recorder()  # what was recorded is of the tensors before
            torch.set_rng_state(tensors["generator"])
            if "device_generator" in tensors and torch.cuda.is_available():
                device = next(self.model.parameters()).device
                torch.cuda.set_rng_state(tensors["device_generator"], device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"The checkpoint is of another model or version: {error}") from error

    def _optimizer_states(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        """Yield a name, the weight, and what the optimizer keeps of it, to read and to write."""
        weights = (w for processes in self.optimizer.param_groups for w in processes["params"])
        for number, weight in enumerate(weights):
            yield f"optimizer.{number}.", weight, self.optimizer.state[weight]


def first_state(setup: Setup) -> State:
    """Return the state before the first step, from the seed alone."""
    config, info = setup.config, setup.info
    torch.manual_seed(config.seed)
    model = build_model(info, config.weights)
    if initialise := getattr(model, "initialise_from", None):
        rng = generator(config.seed, "whitening")
        chosen = torch.randperm(len(setup.training), generator=rng)[:INITIAL_PICTURES]
        images = setup.training[chosen.to(setup.training.store.device)].store.cpu()
        initialise(prepare(images, torch.tensor(info.mean), torch.tensor(info.std)))
    model = model.to(setup.device).to(memory_format=memory_format(setup.device))
    setup.processes.spread(model)
    return State(model, build_optimizer(model, config), _slow(model) if config.lookahead else {})


def _slow(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's weights and running statistics, by name."""
    state = model.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """Return a value where the weight lies, in the same order of memory: sums then round alike."""
    if value.shape != weight.shape:
        return value.to(weight.device)
    return torch.empty_like(weight, requires_grad=False).copy_(value)
