"""A trained model that includes its preprocessing: it maps pixels to probabilities."""

import copy

import torch
from torch import Tensor, nn

from hundredfold.augment import prepare, resampling
from hundredfold.inference.features import last_linear
from hundredfold.inference.known import Known
from hundredfold.models.info import ModelInfo


class DeployedModel(nn.Module):
    """The model that is exported for other programs.

    Args:
        model: maps normalised pictures (B, 3, T, T) to logits (B, C).
        info: the sizes and the normalisation of the pictures, and the temperature of the
            probabilities.
        known: how the model recognises pictures that show none of its classes; None if it cannot.
            The last layer of the model must be linear.
    """

    def __init__(self, model: nn.Module, info: ModelInfo, known: Known | None = None) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(info.mean))
        self.register_buffer("std", torch.tensor(info.std))
        self.temperature, self.side, self.known = info.temperature, info.side, known
        self.body, self.head = _split(model) if known else (model, nn.Identity())
        # The graph has the matrix as a constant, so it must be known before the graph is traced.
        resampling(info.image_size, info.side, self.mean.device, self.mean.dtype)

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map pictures (B, S, S, 3) uint8 to calibrated probabilities (B, C) float32.

        If the model can say, the result is a pair: the second is `Prediction.known`, (B,).
        """
        x = prepare(pictures.permute(0, 3, 1, 2), self.mean, self.std, self.side)
        features = self.body(x)
        logits = self.head(features)
        probabilities = (logits / self.temperature).softmax(1)
        return (probabilities, self.known(logits, features)) if self.known else probabilities


def _split(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a copy of a model without its last linear layer, and that layer."""
    body = copy.deepcopy(model)
    head = last_linear(body)
    for module in list(body.modules()):
        for name, child in module.named_children():
            if child is head:
                setattr(module, name, nn.Identity())
    return body, head


def trace(deployed: DeployedModel, size: int) -> torch.export.ExportedProgram:
    """Return the graph of a model for batches of any size, of pictures (B, size, size, 3)."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    batch = {"pictures": {0: torch.export.Dim("batch")}}
    return torch.export.export(deployed.eval(), (example,), dynamic_shapes=batch)
