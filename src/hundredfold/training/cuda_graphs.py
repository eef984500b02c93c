"""Record a training step as a CUDA graph and replay it: one launch instead of a thousand.

Launching the kernels of a step from Python takes longer than running them on a GPU, as small as
these networks are (docs/LOG.md, 2026-11-26).
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 3
"""Number of steps that are launched before one is recorded, in which libraries are initialised."""


class Recorder:
    """Replays a recorded step. When steps of another kind come, it records again."""

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._steps = 0
        self._side_stream: torch.cuda.Stream | None = None
        self._replay: Callable[[Tensor, Tensor], Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recorder":
        """Return a new recorder: a recorded step uses the memory of the other's tensors."""
        return Recorder()

    def take(
        self,
        kind: Hashable,
        step: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Take a step.

        Args:
            kind: identifies steps that use the same kernels, for example by the size of the
                pictures.
            step: takes a step with pictures and labels, whose shapes and data types are the same
                for all steps of a kind, and returns the loss, 0-dimensional, without waiting for
                the GPU.
            images: (B, 3, H, W) on a CUDA device.
            labels: (B,) int64 or (B, C) floating point, on the same device.

        Returns:
            The loss, 0-dimensional.
        """
        if kind != self._kind:
            self._kind, self._steps, self._replay = kind, 0, None
        self._steps += 1
        with torch.cuda.device(images.device):  # the streams below belong to this device
            if self._steps <= WARM_UP_STEPS:
                self._side_stream = self._side_stream or torch.cuda.Stream()
                return _on(self._side_stream, step, images, labels)
            if self._replay is None:
                self._replay = _record(step, images, labels)
            return self._replay(images, labels)


def _on(
    stream: torch.cuda.Stream,
    step: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Take a step on a side stream, as recording does later; return the loss."""
    main = torch.cuda.current_stream()
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        loss = step(images, labels)
    main.wait_stream(stream)
    return loss


def _record(
    step: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Record a step without taking it; return a function that replays it with other pictures."""
    graph, inputs = torch.cuda.CUDAGraph(), (images.clone(), labels.clone())
    with torch.cuda.graph(graph):
        loss = step(*inputs)

    def replay(images: Tensor, labels: Tensor) -> Tensor:
        for recorded, new in zip(inputs, (images, labels), strict=True):
            recorded.copy_(new)
        graph.replay()
        return loss.clone()

    return replay


def fused(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model compiled by torch.compile, which is slow, once for each size of pictures.

    Kernels that may round differently are chosen without timing them, so that another process
    chooses the same ones. torch 2.9 has no option for this.
    """
    option = "deterministic"
    options: dict[str, Any] = {option: True} if option in torch._inductor.list_options() else {}
    return torch.compile(model, dynamic=False, options=options)
