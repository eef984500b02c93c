"""The learning-rate range test: the loss while the learning rate rises exponentially.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3. As in fastai, the
suggestion is the rate at which the loss falls most steeply.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hundredfold.models.timm import freeze_statistics
from hundredfold.support.device import fork_rng, keep_memory
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.training.batches import batches
from hundredfold.training.loop import gradients
from hundredfold.training.setup import Setup
from hundredfold.training.state import State

LOWEST, HIGHEST = 1e-6, 10.0
"""First and last learning rate."""
SMOOTHING = 0.9
"""Weight of the previous mean in the exponential moving average of the loss."""
DIVERGED = 2.0
"""Ratio of the mean loss to its lowest value above which the loss has diverged."""
MIN_STEPS = 10
"""Fewest steps from which a slope is computed."""


@dataclass(frozen=True)
class LrCurve:
    """The result of a range test."""

    lr: tuple[float, ...]
    """Learning rate of each step, rising."""
    loss: tuple[float, ...]
    """Training loss in nats before each step, as an exponential moving average."""

    @property
    def steepest(self) -> float:
        """The suggested rate, at which the loss falls most steeply over the logarithm of the rate.

        Raises:
            UserError: there are too few points, or the loss never falls.
        """
        if len(self.lr) < MIN_STEPS:
            raise UserError("The loss diverged at once: there is no learning rate to suggest.")
        slopes = torch.gradient(torch.tensor(self.loss), spacing=(torch.tensor(self.lr).log(),))[0]
        if slopes.min() >= 0:
            raise UserError("The loss falls at no learning rate, so there is none to suggest.")
        return self.lr[int(slopes.argmin())]

    @property
    def lowest(self) -> float:
        """The rate at which the mean loss is lowest: about ten times too high for training."""
        return self.lr[self.loss.index(min(self.loss))]


def find_lr(
    state: State, setup: Setup, steps: int = 100, advance: Callable[[int], None] = lambda _: None
) -> LrCurve:
    """Take steps with rising learning rates on a copy of a state; the state itself is not changed.

    All learning rates of the optimizer rise in the same proportion.

    Args:
        state: the initial weights, batch-norm statistics and optimizer moments.
        setup: the training pictures and the configuration.
        steps: number of steps of the full range; the test stops earlier if the loss diverges.
        advance: receives the number of steps just taken.

    Raises:
        UserError: `steps` is less than MIN_STEPS, or only the head is trained.

    Examples:
        >>> setup = make_setup(quick(device="cpu"), load_sample(), torch.device("cpu"))
        >>> curve = find_lr(first_state(setup), setup, steps=10)
        >>> curve.lr[0] < curve.lr[-1]
        True
    """
    if steps < MIN_STEPS:
        raise UserError(f"--steps is {steps}, but must be at least {MIN_STEPS}.")
    if not setup.steps:
        raise UserError("--epochs is 0: only the head is trained, which needs no learning rate.")
    with fork_rng(setup.device):
        return _range_test(copy.deepcopy(state), setup, steps, advance)


def _range_test(state: State, setup: Setup, steps: int, advance: Callable[[int], None]) -> LrCurve:
    """Take the steps; this changes the state."""
    if setup.device.type == "cpu":
        keep_memory()
    state.model.train()
    if setup.config.weights:
        freeze_statistics(state.model)
    ratio = (HIGHEST / LOWEST) ** (1 / (steps - 1))
    rates, losses, mean = [], [], 0.0
    for step, (images, labels) in enumerate(itertools.islice(_endless_batches(setup), steps)):
        rate = LOWEST * ratio**step
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"] / setup.config.lr
        try:
            loss = gradients(state, setup, images, labels).item()
        except DivergedError:
            break
        state.optimizer.step()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))  # as Adam corrects its moments
        advance(1)
        if losses[-1] > DIVERGED * min(losses) or not math.isfinite(losses[-1]):
            break
    return LrCurve(tuple(rates), tuple(losses))


def _endless_batches(setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after the other without end."""
    for epoch in itertools.count():
        yield from batches(setup, epoch)
