"""Schedules as pure functions of the step, and the optimizers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hundredfold.config import Config

ADAM_BETA1 = (0.85, 0.95)
"""Adam's first beta at the peak of the one-cycle learning rate, and at both its ends."""
LOOKAHEAD_STEPS = 5
"""From one look ahead to the next."""
MUON_MOMENTUM = 0.6
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5: they carry every singular value of 0.05 to 1 near to 1 fast."""
NEWTON_SCHULZ_STEPS = 3


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _rise_and_fall(step: float, steps: float, warmup: float) -> tuple[bool, float]:
    """Return (still rising, share of the rise or fall that is done, 0..1)."""
    top = warmup * steps - 1
    if step <= top:
        return True, step / top if top > 0 else 1.0
    return False, min(1.0, (step - top) / (steps - 1 - top))


def one_cycle(step: float, steps: float, warmup: float = 0.3) -> float:
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


def one_cycle_beta1(step: float, steps: float, warmup: float = 0.3) -> float:
    """Return Adam's first beta for a step: the mirror of the learning rate, as OneCycleLR's."""
    low, high = ADAM_BETA1
    rising, share = _rise_and_fall(step, steps, warmup)
    return _cosine(high, low, share) if rising else _cosine(low, high, share)


def triangle(step: float, steps: float, warmup: float = 0.2, end: float = 0.07) -> float:
    """Return the learning rate of a step as a share of the peak: up from 0, then down to `end`.

    Args:
        step: 0..steps-1.
        steps: length of the cycle.
        warmup: share of the steps spent rising.
        end: what the last step has.
    """
    done = min(1.0, (step + 1) / steps)
    return done / warmup if done < warmup else 1 - (1 - end) * (done - warmup) / (1 - warmup)


def set_schedule(
    optimizer: torch.optim.Optimizer, step: float, steps: float, config: Config
) -> float:
    """Set the optimizer's learning rates (and Adam's beta) for a step; return `config.lr`'s part.

    Args:
        optimizer: from `build_optimizer`.
        step: 0..steps-1; need not be whole, for a run that follows the clock.
        steps: length of the schedule.
        config: names the schedule.
    """
    schedule = one_cycle if config.schedule == "one_cycle" else triangle
    share = schedule(step, steps, config.warmup)
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # where a recorded step reads it
        else:
            group["lr"] = rate
        if config.schedule == "one_cycle" and "betas" in group:
            group["betas"] = (one_cycle_beta1(step, steps, config.warmup), group["betas"][1])
    return config.lr * share


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the optimizer over the model's trainable parameters."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    weights = list(named.values())
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(weights, lr, weight_decay=decay, fused=True)
    elif config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            weights, lr, momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
        )
    else:
        optimizer = Muon(named, config)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
    return optimizer


@torch.no_grad()
def look_ahead(model: nn.Module, slow: Mapping[str, Tensor], keep: float) -> None:
    """Move slow weights towards the model's, then the model's to them; running statistics as well.

    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019.

    Args:
        model: changed in place.
        slow: by the names of the model's state; changed in place.
        keep: share of themselves that the slow weights keep (0..1).
    """
    state = {name: v for name, v in model.state_dict().items() if v.is_floating_point()}
    fast, kept = list(state.values()), [slow[name] for name in state]
    torch._foreach_lerp_(kept, fast, 1 - keep)
    torch._foreach_copy_(fast, kept)


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, Nesterov SGD for all other weights.

    Muon ("momentum, orthogonalised by Newton-Schulz", Keller Jordan, 2024) moves each layer by its
    momentum with all singular values brought near to one, so that no direction is drowned by the
    strong ones. As in Jordan's airbench94_muon, the norm of each convolution is held at the square
    root of its filters: batch norm makes its scale irrelevant, and a step's size then means the
    same throughout. Hence convolutions have no weight decay.

    Args:
        weights: parameters by name; those of four dimensions are convolutions, those called bias
            biases.
        config: its `muon_lr` is of the convolutions, whose momentum is MUON_MOMENTUM; its `lr`,
            `momentum` and `weight_decay` (an L2 penalty) are of the others. Biases learn `bias_lr`
            times as fast as these, and decay as fast.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], config: Config) -> None:
        convolutions = {"lr": config.muon_lr, "momentum": MUON_MOMENTUM, "weight_decay": 0.0}
        others = {
            "lr": config.lr,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
        }
        biases = others | {
            "lr": config.lr * config.bias_lr,
            "weight_decay": config.weight_decay / config.bias_lr,
        }
        sorts: dict[str, list[nn.Parameter]] = {"convolution": [], "bias": [], "other": []}
        for name, weight in weights.items():
            bias = name.rpartition(".")[2] == "bias"
            sorts["convolution" if weight.ndim == 4 else "bias" if bias else "other"].append(weight)
        groups = [
            {"params": sorts["convolution"], "orthogonal": True, **convolutions},
            {"params": sorts["bias"], "orthogonal": False, **biases},
            {"params": sorts["other"], "orthogonal": False, **others},
        ]
        super().__init__([group for group in groups if group["params"]], {})
        for group in self.param_groups:
            device = group["params"][0].device
            if device.type == "cuda":  # what is recorded must not hold a number that changes
                group["lr"] = torch.tensor(group["lr"], device=device)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group that has all it needs; torch's own method first loads a compiler, 1.4 s."""
        self.param_groups.append(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients.

        Args:
            closure: as torch.optim.Optimizer has it; not called.
        """
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            updates = self._directions(weights, group)
            if group["orthogonal"]:
                norms = list(torch._foreach_norm(weights))
                torch._foreach_reciprocal_(norms)
                torch._foreach_mul_(norms, [len(weight) ** 0.5 for weight in weights])
                torch._foreach_mul_(weights, norms)
                _orthogonalise_(updates)
            if isinstance(group["lr"], Tensor):
                torch._foreach_mul_(updates, -group["lr"])
                torch._foreach_add_(weights, updates)
            else:
                torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _directions(self, weights: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """Return each gradient with its decay and Nesterov's momentum, which goes on."""
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))


def _orthogonalise_(kernels: list[Tensor]) -> None:
    """Orthogonalise convolutions' updates, (O, I, H, W) each, in place, as (O, H*W*I) matrices."""
    as_kept = [kernel.permute(0, 2, 3, 1) for kernel in kernels]  # as they lie where channels last
    matrices = orthogonalised([kernel.flatten(1) for kernel in as_kept])
    torch._foreach_copy_(
        as_kept, [m.view_as(kernel) for m, kernel in zip(matrices, as_kept, strict=True)]
    )


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return matrices of the same singular vectors, their larger singular values near one.

    The polynomial x -> ax + bx^3 + cx^5 of Newton-Schulz, three times over, on the small Gram
    matrices: the wide ones are multiplied only twice. Those of one size go together, in few
    kernels.

    Args:
        matrices: (M, N) float32 each, of any sizes; under autocast the products are of its type,
            which is enough.
    """
    tall = [m.shape[0] > m.shape[1] for m in matrices]
    wide = [m.T if t else m for m, t in zip(matrices, tall, strict=True)]
    device = matrices[0].device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else matrices[0].dtype
    norms = torch._foreach_norm(wide)
    wide = [(m / (norm + 1e-7)).to(dtype) for m, norm in zip(wide, norms, strict=True)]
    places: dict[int, list[int]] = {}
    for i, matrix in enumerate(wide):
        places.setdefault(len(matrix), []).append(i)
    for alike in places.values():
        factors = _newton_schulz(torch.stack([wide[i] @ wide[i].T for i in alike]))
        for i, factor in zip(alike, factors, strict=True):
            wide[i] = factor @ wide[i]
    return [w.T if t else w for w, t in zip(wide, tall, strict=True)]


def _newton_schulz(grams: Tensor) -> Tensor:
    """Return what to multiply matrices by that have these Gram matrices, (L, M, M)."""
    product = factor = _polynomial(grams)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        grams = factor @ grams @ factor
        factor = _polynomial(grams)
        product = factor @ product
    return product


def _polynomial(grams: Tensor) -> Tensor:
    """Return a + b x + c x^2 of each, (L, M, M)."""
    a, b, c = NEWTON_SCHULZ
    found = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
    found.diagonal(dim1=1, dim2=2).add_(a)
    return found
