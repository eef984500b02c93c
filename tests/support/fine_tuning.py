"""A small model of timm to fine-tune."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hundredfold import Config, finetune


def write_weights(folder: Path) -> Path:
    """Write a file with the weights of a model that has other classes."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(7)
    path = folder / "weights.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=9).state_dict(), path)
    return path


def fine_tuning(weights: Path, out: Path) -> Config:
    """Return a configuration that fine-tunes these weights in a second."""
    return finetune(
        model="timm:resnet10t",
        weights=str(weights),
        batch_norm=True,
        size=0,
        epochs=1.0,
        batch_size=12,
        validation=0.25,
        device="cpu",
        out=str(out),
    )
