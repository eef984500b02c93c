"""A trained model that includes its preprocessing: it maps pixels to probabilities."""

import torch
from torch import Tensor, nn

from hundredfold.augment import prepare, resampling
from hundredfold.models.info import ModelInfo


class DeployedModel(nn.Module):
    """The model that is exported for other programs.

    Args:
        model: maps normalised pictures (B, 3, T, T) to logits (B, C).
        info: the sizes and the normalisation of the pictures, and the temperature of the
            probabilities.
    """

    def __init__(self, model: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(info.mean))
        self.register_buffer("std", torch.tensor(info.std))
        self.model, self.temperature, self.side = model, info.temperature, info.side
        # The graph has the matrix as a constant, so it must be known before the graph is traced.
        resampling(info.image_size, info.side, self.mean.device, self.mean.dtype)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, S, S, 3) uint8 to calibrated probabilities (B, C) float32."""
        x = prepare(pictures.permute(0, 3, 1, 2), self.mean, self.std, self.side)
        logits: Tensor = self.model(x) / self.temperature
        return logits.softmax(1)


def trace(deployed: DeployedModel, size: int) -> torch.export.ExportedProgram:
    """Return the graph of a model for batches of any size, of pictures (B, size, size, 3)."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    batch = {"pictures": {0: torch.export.Dim("batch")}}
    return torch.export.export(deployed.eval(), (example,), dynamic_shapes=batch)
