"""The learning-rate range test: the loss while the rate rises from next to nothing.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3; as in fastai, the
rate rises exponentially and the suggestion is where the loss falls most steeply.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hundredfold.support.device import keep_memory, own_generators
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.training.batches import batches
from hundredfold.training.loop import gradients
from hundredfold.training.setup import Setup
from hundredfold.training.state import State

LOWEST, HIGHEST = 1e-6, 10.0
"""Learning rates at both ends."""
SMOOTHING = 0.9
"""Share of the mean loss so far in the next."""
GIVE_UP = 2.0
"""Times the lowest mean loss at which it has diverged."""
FEWEST = 10
"""Points from which on a slope means anything."""


@dataclass(frozen=True)
class LrCurve:
    """What a range test found."""

    lr: tuple[float, ...]
    """Of each step, rising."""
    loss: tuple[float, ...]
    """Mean before that step, of its own and of those before, these fading."""

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest by the logarithm of the rate: the suggestion.

        Raises:
            UserError: there are too few points.
        """
        if len(self.lr) < FEWEST:
            raise UserError("The loss diverged at once: there is no learning rate to suggest.")
        slopes = torch.gradient(torch.tensor(self.loss), spacing=(torch.tensor(self.lr).log(),))[0]
        return self.lr[int(slopes.argmin())]

    @property
    def lowest(self) -> float:
        """The rate at which the mean loss is lowest: too high for training by some ten times."""
        return self.lr[self.loss.index(min(self.loss))]


def find_lr(
    state: State, setup: Setup, steps: int = 100, advance: Callable[[int], None] = lambda _: None
) -> LrCurve:
    """Take steps of ever higher rates with a copy of a state; the state itself is left untouched.

    All of the optimizer's rates rise together, in the proportion that the configuration gives them.

    Args:
        state: what to begin from: weights, batch-norm statistics, the optimizer's moments.
        setup: what to train on, and how.
        steps: of the whole range; fewer are taken where the loss diverges.
        advance: takes the number of steps just taken.

    Raises:
        UserError: fewer than FEWEST steps are asked for.
    """
    if steps < FEWEST:
        raise UserError(f"--steps is {steps}, but must be at least {FEWEST}.")
    with own_generators(setup.device):
        return _range_test(copy.deepcopy(state), setup, steps, advance)


def _range_test(trial: State, setup: Setup, steps: int, advance: Callable[[int], None]) -> LrCurve:
    """Take the steps, on a state that nobody needs."""
    if setup.device.type == "cpu":
        keep_memory()
    trial.model.train()
    ratio = (HIGHEST / LOWEST) ** (1 / (steps - 1))
    rates, losses, mean = [], [], 0.0
    for step, (images, labels) in enumerate(itertools.islice(_without_end(setup), steps)):
        rate = LOWEST * ratio**step
        for group in trial.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"] / setup.config.lr
        try:
            loss = gradients(trial, setup, images, labels).item()
        except DivergedError:
            break
        trial.optimizer.step()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))  # as Adam corrects its moments
        advance(1)
        if losses[-1] > GIVE_UP * min(losses) or not math.isfinite(losses[-1]):
            break
    return LrCurve(tuple(rates), tuple(losses))


def _without_end(setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batch after batch, epoch after epoch."""
    for epoch in itertools.count():
        yield from batches(setup.train_split, epoch, setup.config, setup.device)
