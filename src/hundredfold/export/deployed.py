"""A trained model with its preparation inside: pixels in, probabilities out."""

import torch
from torch import Tensor, nn

from hundredfold.augment import prepare
from hundredfold.models.info import ModelInfo


class Deployed(nn.Module):
    """What other programs run.

    Args:
        model: maps (B, 3, S, S), normalised, to logits (B, C).
        info: how the model's pictures are prepared, and what its probabilities are calibrated by.
    """

    def __init__(self, model: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(info.mean))
        self.register_buffer("std", torch.tensor(info.std))
        self.model, self.temperature = model, info.temperature

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, S, S, 3) uint8 to calibrated probabilities (B, C) float32."""
        x = prepare(pictures.permute(0, 3, 1, 2), self.mean, self.std)
        logits: Tensor = self.model(x) / self.temperature
        return logits.softmax(1)


def trace(deployed: Deployed, side: int) -> torch.export.ExportedProgram:
    """Return the graph of a deployed model, for any number of pictures of that side."""
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    batch = {"pictures": {0: torch.export.Dim("batch")}}
    return torch.export.export(deployed.eval(), (example,), dynamic_shapes=batch)
