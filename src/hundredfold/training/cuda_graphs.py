"""A training step recorded as a CUDA graph and replayed: one launch in place of a thousand.

Networks as small as these leave a GPU waiting for Python, which needs longer to launch a step's
kernels than the GPU to run them (docs/LOG.md, 2026-11-26).
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

WARM = 3
"""Steps that are taken before one is recorded, in which libraries set themselves up."""


class Recorder:
    """Takes steps of one kind by replaying one of them; another kind is recorded anew."""

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._taken = 0
        self._aside: torch.cuda.Stream | None = None
        self._replay: Callable[[Tensor, Tensor], Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recorder":
        """Return a new one: what was recorded is of the other's memory."""
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
            kind: what steps must have in common to be the same kernels: the pictures' size, say.
            step: takes pictures and labels, of the same shapes for all steps of a kind, and returns
                the loss, 0-dimensional, without waiting for the GPU.
            images: (B, 3, H, W) on a CUDA device.
            labels: (B,), there too.

        Returns:
            The loss, 0-dimensional.
        """
        if kind != self._kind:
            self._kind, self._taken, self._replay = kind, 0, None
        self._taken += 1
        with torch.cuda.device(images.device):  # whose streams are meant below
            if self._taken <= WARM:
                self._aside = self._aside or torch.cuda.Stream()
                return _on(self._aside, step, images, labels)
            if self._replay is None:
                self._replay = _record(step, images, labels)
            return self._replay(images, labels)


def _on(
    stream: torch.cuda.Stream,
    step: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Take a step on a stream that is not the main one, as is recorded later; return the loss."""
    main = torch.cuda.current_stream()
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        loss = step(images, labels)
    main.wait_stream(stream)
    return loss


def _record(
    step: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that does what the step did, with other pictures; none is taken yet."""
    graph, inputs = torch.cuda.CUDAGraph(), (images.clone(), labels.clone())
    with torch.cuda.graph(graph):
        loss = step(*inputs)

    def replay(images: Tensor, labels: Tensor) -> Tensor:
        for kept, new in zip(inputs, (images, labels), strict=True):
            kept.copy_(new)
        graph.replay()
        return loss.clone()

    return replay


def fused(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model, whose kernels torch.compile fuses: slowly, once for each size of pictures.

    Those whose sums could round otherwise are chosen without timing them, so that another process
    chooses the same; torch 2.9 cannot do without.
    """
    option = "deterministic"
    options: dict[str, Any] = {option: True} if option in torch._inductor.list_options() else {}
    return torch.compile(model, dynamic=False, options=options)
