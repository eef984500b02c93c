"""The architectures by name.

To add one, write a class in a file of this folder and add a line to MODELS. A model is a torch
module. It is called as `Model(classes, widths, side=..., batch_norm=..., residual=...)`, where
`widths` has a default, and maps pictures (B, 3, H, W) to logits (B, classes). It may also have:

- `has_batch_norm` and `has_residual`: whether the arguments `batch_norm` and `residual` have an
  effect; without the attribute, they have none;
- `initialise_from(images)`: called once before training with up to a thousand training pictures,
  (N, 3, H, W) float32 and normalised.

On a GPU, its training steps are recorded as CUDA graphs: its forward pass must not depend on values
that only the GPU knows.
"""

import re
from collections.abc import Mapping

from torch import nn

from hundredfold.models.resnet9 import ResNet9
from hundredfold.models.whitenet import WhiteNet, WhiteResNet

MODELS: Mapping[str, type[nn.Module]] = {
    "resnet9": ResNet9,
    "whitenet": WhiteNet,
    "whiteresnet": WhiteResNet,
}
TIMM = "timm:"
"""Prefix of the names of timm's models."""
MOST_CHANNELS = 16_384
"""Most channels of a stage."""
MOST_SIDE = 384
"""Largest side of the pictures in pixels."""


def is_model(name: str) -> bool:
    """Return whether a name can be that of a model: one of MODELS, or one of timm's."""
    return name in MODELS or re.fullmatch(rf"{TIMM}[\w.-]+", name) is not None


def fixed_options(name: str) -> set[str]:
    """Return the options among `batch_norm` and `residual` that a model does not support."""
    model = MODELS.get(name)
    return {
        option
        for option in ("batch_norm", "residual")
        if not getattr(model, f"has_{option}", False)
    }
