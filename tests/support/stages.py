"""Features of the stages of timm's EfficientNet, computed in a slow and obvious way."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def stage_features(model: Any, pictures: Tensor) -> Tensor:
    """Return the features (N, D) of normalised pictures (N, 3, S, S).

    They are the last features, scaled to length 10, and those of stages 2 to 6, scaled to length 7:
    means over the picture, and in stages 4 and 5 over its quarters.
    """
    maps, stages = model.bn1(model.conv_stem(pictures)), list[Tensor]()
    for stage in model.blocks:
        maps = stage(maps)
        stages.append(maps)
    last = model.forward_head(model.forward_features(pictures), pre_logits=True)
    parts = [10 * last / last.norm(dim=1, keepdim=True)]
    for i in (2, 3, 4, 5, 6):
        pooled = stages[i].mean((2, 3))
        if i in (4, 5):
            quarters = F.adaptive_avg_pool2d(stages[i], 2)
            pooled = torch.cat([quarters[:, :, r, c] for r in (0, 1) for c in (0, 1)], 1)
        parts.append(7 * pooled / pooled.norm(dim=1, keepdim=True))
    return torch.cat(parts, 1)
