"""Schedules as pure functions of the step, optimizers, lookahead."""

import math

import torch
from torch import Tensor, nn

from hundredfold.config import Config

ADAM_BETA1 = (0.85, 0.95)
"""Adam's first beta at the peak of the one-cycle learning rate, and at both its ends."""
LOOKAHEAD_STEPS = 5


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _rise_and_fall(step: int, steps: int, warmup: float) -> tuple[bool, float]:
    """Return (still rising, share of the rise or fall that is done, 0..1)."""
    top = warmup * steps - 1
    if step <= top:
        return True, step / top if top > 0 else 1.0
    return False, (step - top) / (steps - 1 - top)


def one_cycle(step: int, steps: int, warmup: float = 0.3) -> float:
    """Return the learning rate of a step as a share of the peak: cosine up, then cosine down.

    From 1/25 up to 1 and down to 1/250,000, as torch.optim.lr_scheduler.OneCycleLR does by default
    (Smith and Topin, "Super-Convergence", 2018).

    Args:
        step: 0..steps-1.
        steps: length of the cycle.
        warmup: share of the steps spent rising.
    """
    rising, share = _rise_and_fall(step, steps, warmup)
    return _cosine(1 / 25, 1, share) if rising else _cosine(1, 1 / 250_000, share)


def one_cycle_beta1(step: int, steps: int, warmup: float = 0.3) -> float:
    """Return Adam's first beta for a step: the mirror of the learning rate, as OneCycleLR's."""
    low, high = ADAM_BETA1
    rising, share = _rise_and_fall(step, steps, warmup)
    return _cosine(high, low, share) if rising else _cosine(low, high, share)


def triangle(step: int, steps: int, warmup: float = 0.2, end: float = 0.07) -> float:
    """Return the learning rate of a step as a share of the peak: up from 0, then down to `end`.

    Args:
        step: 0..steps-1.
        steps: length of the cycle.
        warmup: share of the steps spent rising.
        end: what the last step has.
    """
    done = (step + 1) / steps
    return done / warmup if done < warmup else 1 - (1 - end) * (done - warmup) / (1 - warmup)


def set_schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, config: Config) -> float:
    """Set the optimizer's learning rate (and Adam's beta) for a step; return the learning rate."""
    schedule = one_cycle if config.schedule == "one_cycle" else triangle
    lr = config.lr * schedule(step, steps, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if config.schedule == "one_cycle" and "betas" in group:
            group["betas"] = (one_cycle_beta1(step, steps, config.warmup), group["betas"][1])
    return lr


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the optimizer over the model's trainable parameters."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    if config.optimizer == "adam":
        return torch.optim.Adam(weights, lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        weights, lr, momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
    )


def lookahead_decay(step: int, steps: int, config: Config) -> float | None:
    """Return how much of the slow weights stays at a step, or None where they wait.

    Every 5 steps, and at the last. The share rises with the cube of the progress to `lookahead`
    to the 5th, after Jordan ("94% on CIFAR-10 in 3.29 Seconds", 2024, section 3.4) and
    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019.
    """
    if not config.lookahead or (step % LOOKAHEAD_STEPS and step != steps - 1):
        return None
    return float(config.lookahead**LOOKAHEAD_STEPS * ((step + 1) / steps) ** 3)


@torch.no_grad()
def lookahead_(slow: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Pull the slow weights towards the model's, then set the model to them, both in place."""
    for name, fast in model.state_dict().items():
        if fast.is_floating_point():
            slow[name].lerp_(fast, 1 - decay)
            fast.copy_(slow[name])
