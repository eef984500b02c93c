"""Classify by the features of several stages of a pretrained network, not by the last ones alone.

The last features of a network are made for the classes of its pretraining. For other classes, a
linear head does better if it sees the features of earlier stages as well (Evci et al., "Head2Toe:
Utilizing Intermediate Representations for Better Transfer Learning", 2022). The network computes
them anyway, so they cost no time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHOLE, QUARTERS = (2, 3, 6), (4, 5)
"""Stages (0 to 6) whose features are means over the picture, and over each quarter of it. Chosen by
cross-validation on the training pictures of three sets (docs/LOG.md)."""
LAST_FEATURES = 1280
"""Number of features after the last stage. They are the first inputs of the head."""
NORM, STAGE_NORM = 10.0, 7.0
"""Length of the vector of the last features, and of that of each stage, of every picture. The
penalty of the head affects the shorter vectors more, which helps if there are few pictures."""


class LevelNet(nn.Module):
    """EfficientNet whose head sees the features of several stages.

    The inputs of the head, `classifier`, are the last features, and then those of the stages.

    Args:
        body: a tf_efficientnet_lite model of timm, version 0 to 2; its own head is removed.
        classes: number of classes C.
    """

    def __init__(self, body: Any, classes: int) -> None:
        super().__init__()
        body.reset_classifier(0)
        self.body = body
        widths = {i: body.blocks[i][-1].conv_pwl.out_channels for i in WHOLE + QUARTERS}
        of_stages = sum(widths[i] for i in WHOLE) + 4 * sum(widths[i] for i in QUARTERS)
        self.classifier = nn.Linear(LAST_FEATURES + of_stages, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits (B, C) for normalised pictures (B, 3, S, S)."""
        body: Any = self.body
        maps, levels = body.bn1(body.conv_stem(pictures)), []
        for stage, blocks in enumerate(body.blocks):
            maps = blocks(maps)
            if stage in WHOLE:
                levels.append(maps.mean((2, 3)))
            elif stage in QUARTERS:
                levels.append(mean_of_quarters(maps))
        last = body.bn2(body.conv_head(maps)).mean((2, 3))
        scaled = [STAGE_NORM * F.normalize(level) for level in levels]
        logits: Tensor = self.classifier(torch.cat([NORM * F.normalize(last), *scaled], 1))
        return logits


def mean_of_quarters(maps: Tensor) -> Tensor:
    """Return the means (B, 4 C) of the four quarters of maps (B, C, H, W).

    If a side is odd, its middle row or column belongs to both halves.
    """
    height, width = maps.shape[2:]
    rows = slice((height + 1) // 2), slice(height // 2, None)
    columns = slice((width + 1) // 2), slice(width // 2, None)
    return torch.cat([maps[:, :, i, j].mean((2, 3)) for i in rows for j in columns], 1)
