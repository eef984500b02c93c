"""Learning-rate schedules as pure functions of the step, and the optimizers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hundredfold.config import Config
from hundredfold.models.timm import layer_numbers

ADAM_BETA1 = (0.85, 0.95)
"""Adam's first beta at the peak of the one-cycle schedule, and at both of its ends."""
LOOKAHEAD_STEPS = 5
"""Steps between two updates of the slow weights."""
MUON_MOMENTUM = 0.6
"""Momentum of the convolutions."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5: they bring singular values of 0.05 to 1 close to 1 quickly."""
NEWTON_SCHULZ_STEPS = 3


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _rise_and_fall(step: float, steps: float, warmup: float) -> tuple[bool, float]:
    """Return (whether the rate still rises, share of the rise or fall that is done, 0..1)."""
    top = warmup * steps - 1
    if step <= top:
        return True, step / top if top > 0 else 1.0
    return False, min(1.0, (step - top) / (steps - 1 - top))


def one_cycle(step: float, steps: float, warmup: float = 0.3) -> float:
    """Return the learning rate of a step as a share of the peak: cosine up, then cosine down.

    The share rises from 1/25 to 1 and falls to 1/250,000, as with the defaults of
    torch.optim.lr_scheduler.OneCycleLR (Smith and Topin, "Super-Convergence", 2018).

    Args:
        step: 0..steps-1.
        steps: length of the cycle.
        warmup: share of the steps spent rising.
    """
    rising, share = _rise_and_fall(step, steps, warmup)
    return _cosine(1 / 25, 1, share) if rising else _cosine(1, 1 / 250_000, share)


def one_cycle_beta1(step: float, steps: float, warmup: float = 0.3) -> float:
    """Return Adam's first beta for a step: the mirror of the learning rate, as in OneCycleLR."""
    low, high = ADAM_BETA1
    rising, share = _rise_and_fall(step, steps, warmup)
    return _cosine(high, low, share) if rising else _cosine(low, high, share)


def triangle(step: float, steps: float, warmup: float = 0.2, end: float = 0.07) -> float:
    """Return the learning rate of a step as a share of the peak: up from 0, then down to `end`.

    Both parts are straight lines.

    Args:
        step: 0..steps-1.
        steps: length of the cycle.
        warmup: share of the steps spent rising.
        end: share of the peak at the last step.
    """
    done = min(1.0, (step + 1) / steps)
    return done / warmup if done < warmup else 1 - (1 - end) * (done - warmup) / (1 - warmup)


def set_schedule(
    optimizer: torch.optim.Optimizer,
    step: float,
    steps: float,
    *,
    schedule: Literal["one_cycle", "triangle"],
    warmup: float,
) -> float:
    """Set an optimizer's learning rates, and Adam's first beta, for a step.

    Args:
        optimizer: as returned by `build_optimizer`.
        step: 0..steps-1; a fraction in a run that follows the clock.
        steps: length of the schedule.
        schedule: name of the schedule; with one_cycle, Adam's first beta changes as well.
        warmup: share of the steps spent rising.

    Returns:
        The learning rate as a share of its peak.
    """
    cycle = schedule == "one_cycle"
    share = (one_cycle if cycle else triangle)(step, steps, warmup)
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # a recorded step reads the rate from this tensor
        else:
            group["lr"] = rate
        if cycle and "betas" in group:
            group["betas"] = (one_cycle_beta1(step, steps, warmup), group["betas"][1])
    return share


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the optimizer that a configuration names, for a model's trainable parameters."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        groups = layer_groups(model, config)
        optimizer = torch.optim.AdamW(groups, lr, weight_decay=decay, fused=True)
    elif config.optimizer == "adam":
        optimizer = torch.optim.Adam(named.values(), lr, weight_decay=decay, fused=True)
    elif config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            named.values(), lr, momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
        )
    else:
        optimizer = Muon(
            named,
            lr=lr,
            muon_lr=config.muon_lr,
            bias_lr=config.bias_lr,
            momentum=momentum,
            weight_decay=decay,
        )
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
    return optimizer


def layer_groups(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Return parameter groups for a pretrained model: one or two for each layer.

    The learning rate falls by `config.layer_decay` from each layer to the one before it (Howard and
    Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018, section 3.2).
    Biases and other vectors have no weight decay.
    """
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    layers = layer_numbers(model) if config.layer_decay < 1 else dict.fromkeys(named, 0)
    last = max(layers.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in named.items():
        groups.setdefault((layers[name], weight.ndim > 1), []).append(weight)
    return [
        {
            "params": weights,
            "lr": config.lr * config.layer_decay ** (last - layer),
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for (layer, is_matrix), weights in groups.items()
    ]


@torch.no_grad()
def look_ahead(model: nn.Module, slow: Mapping[str, Tensor], keep: float) -> None:
    """Move the slow weights towards the model's weights, then set the model's weights to them.

    Running statistics are averaged in the same way. Zhang et al., "Lookahead Optimizer: k steps
    forward, 1 step back", 2019.

    Args:
        model: changed in place.
        slow: slow weights by the names of the model's state; changed in place.
        keep: share of themselves that the slow weights keep (0..1).
    """
    state = {name: v for name, v in model.state_dict().items() if v.is_floating_point()}
    fast_values, slow_values = list(state.values()), [slow[name] for name in state]
    torch._foreach_lerp_(slow_values, fast_values, 1 - keep)
    torch._foreach_copy_(fast_values, slow_values)


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, Nesterov SGD for all other weights.

    Muon ("momentum, orthogonalised by Newton-Schulz", Keller Jordan, 2024) moves each layer by its
    momentum after bringing all singular values close to one, so that weak directions count as much
    as strong ones. As in Jordan's airbench94_muon, the norm of each convolution is held at the
    square root of its number of filters: batch norm makes the scale of a convolution irrelevant,
    and with a fixed norm the size of a step means the same throughout the run. For the same reason,
    convolutions have no weight decay. Their momentum is MUON_MOMENTUM.

    Args:
        named_parameters: parameters by name. Those with four dimensions are treated as
            convolutions; of the others, those whose name ends in "bias" are treated as biases.
        lr: learning rate of all weights that are neither convolutions nor biases.
        muon_lr: learning rate of the convolutions.
        bias_lr: factor by which biases learn faster than `lr`. Their weight decay is divided by it,
            so that they decay as fast as the others.
        momentum: Nesterov momentum of all but the convolutions (0..1).
        weight_decay: L2 penalty of all but the convolutions, added to the gradient.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        *,
        lr: float,
        muon_lr: float,
        bias_lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        convolutions = {"lr": muon_lr, "momentum": MUON_MOMENTUM, "weight_decay": 0.0}
        others = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        biases = others | {"lr": lr * bias_lr, "weight_decay": weight_decay / bias_lr}
        by_kind: dict[str, list[nn.Parameter]] = {"convolution": [], "bias": [], "other": []}
        for name, weight in named_parameters.items():
            bias = name.rpartition(".")[2] == "bias"
            kind = "convolution" if weight.ndim == 4 else "bias" if bias else "other"
            by_kind[kind].append(weight)
        groups = [
            {"params": by_kind["convolution"], "orthogonal": True, **convolutions},
            {"params": by_kind["bias"], "orthogonal": False, **biases},
            {"params": by_kind["other"], "orthogonal": False, **others},
        ]
        super().__init__([group for group in groups if group["params"]], {})
        for group in self.param_groups:
            device = group["params"][0].device
            if device.type == "cuda":  # a recorded step reads the rate, which changes, from memory
                group["lr"] = torch.tensor(group["lr"], device=device)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a complete group. The method of torch would first load a compiler, for 1.4 s."""
        self.param_groups.append(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients.

        Args:
            closure: for compatibility with torch.optim.Optimizer; it is not called.
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
        """Return each gradient with weight decay and Nesterov momentum; update the momentum."""
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
    """Orthogonalise the updates of convolutions, (O, I, H, W) each, in place.

    Each is treated as a matrix (O, H*W*I), the order in memory of channels_last.
    """
    views = [kernel.permute(0, 2, 3, 1) for kernel in kernels]
    matrices = orthogonalised([view.flatten(1) for view in views])
    torch._foreach_copy_(views, [m.view_as(view) for m, view in zip(matrices, views, strict=True)])


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return matrices with the same singular vectors and singular values close to one.

    The Newton-Schulz polynomial x -> ax + bx^3 + cx^5 is applied three times. It is computed from
    the small Gram matrices, so each wide matrix takes part in only two products. Matrices with
    Gram matrices of one size are computed together, which takes fewer kernels.

    Args:
        matrices: (M, N) float32 each, of any sizes. Under autocast, the products are computed in
            its data type, which is precise enough.
    """
    tall = [m.shape[0] > m.shape[1] for m in matrices]
    wide = [m.T if t else m for m, t in zip(matrices, tall, strict=True)]
    device = matrices[0].device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else matrices[0].dtype
    norms = torch._foreach_norm(wide)
    wide = [(m / (norm + 1e-7)).to(dtype) for m, norm in zip(wide, norms, strict=True)]
    by_size: dict[int, list[int]] = {}
    for i, matrix in enumerate(wide):
        by_size.setdefault(len(matrix), []).append(i)
    for indices in by_size.values():
        factors = _newton_schulz(torch.stack([wide[i] @ wide[i].T for i in indices]))
        for i, factor in zip(indices, factors, strict=True):
            wide[i] = factor @ wide[i]
    return [w.T if t else w for w, t in zip(wide, tall, strict=True)]


def _newton_schulz(grams: Tensor) -> Tensor:
    """Return the factors that orthogonalise matrices with these Gram matrices, (L, M, M)."""
    product = factor = _polynomial(grams)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        grams = factor @ grams @ factor
        factor = _polynomial(grams)
        product = factor @ product
    return product


def _polynomial(grams: Tensor) -> Tensor:
    """Return a + b x + c x^2 for each Gram matrix x, (L, M, M)."""
    a, b, c = NEWTON_SCHULZ
    result = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result
