"""Batch normalisation over the pictures of all processes, on CPUs and GPUs.

torch's own SyncBatchNorm works on GPUs only.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from hundredfold.support.distributed import Processes


class _SumOverProcesses(torch.autograd.Function):
    """The sum of the tensors of all processes, which all of their losses depend on."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        total = values.clone()
        processes.all_sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.processes.all_sum(total)
        return total, None


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of (B, C, H, W) whose statistics in training are those of all processes.

    Gradients are those of the sum of the losses of all processes.
    """

    processes: Processes

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        x, channels = x.float(), self.num_features
        count = x.new_full((1,), x.numel() / channels)
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        sums = cast("Tensor", _SumOverProcesses.apply(sums, self.processes))
        total = sums[-1].detach()
        mean, square = (sums[:-1] / total).split(channels)
        variance = (square - mean.square()).clamp_min(0)
        self._track(mean.detach(), variance.detach() * total / (total - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, the variance with Bessel's correction as torch does."""
        assert self.running_mean is not None and self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None and self.momentum is not None  # noqa: S101
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronise(model: nn.Module, processes: Processes) -> None:
    """Make the batch normalisation of a model use the statistics of all processes, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
            module.processes = processes  # type: ignore[assignment]
