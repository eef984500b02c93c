"""The tutorial's network: a residual network with nine weight layers and 6.6 M parameters.

It follows David Page's ResNet-9 ("How to Train Your ResNet", 2018), but has biases in the
convolutions and dropout before the last layer.
"""

from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from hundredfold.models.winograd import Conv3x3
from hundredfold.support.errors import UserError


def conv_block(inputs: int, outputs: int, *, batch_norm: bool, pool: bool = False) -> nn.Sequential:
    """Return a 3x3 convolution, batch norm, ReLU, and max-pooling by 2 if `pool` is true."""
    layers: list[nn.Module] = [
        Conv3x3(inputs, outputs),
        *([nn.BatchNorm2d(outputs)] if batch_norm else []),
        nn.ReLU(inplace=True),
        *([nn.MaxPool2d(2)] if pool else []),
    ]
    return nn.Sequential(*layers)


class ResNet9(nn.Module):
    """ResNet-9.

    Args:
        classes: number of outputs.
        widths: channels of the four stages.
        side: side of the pictures in pixels; has no effect.
        batch_norm: whether batch normalisation follows the convolutions.
        residual: whether the two residual connections are there.

    Raises:
        UserError: there are not four widths.
    """

    has_batch_norm: ClassVar[bool] = True
    has_residual: ClassVar[bool] = True

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        *,
        side: int = 32,
        batch_norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 4:
            raise UserError(f"resnet9 has four stages, but --widths names {len(widths)}.")
        w1, w2, w3, w4 = widths
        self.residual = residual
        block = partial(conv_block, batch_norm=batch_norm)
        self.conv1 = block(3, w1)
        self.conv2 = block(w1, w2, pool=True)
        self.res1 = nn.Sequential(block(w2, w2), block(w2, w2))
        self.conv3 = block(w2, w3, pool=True)
        self.conv4 = block(w3, w4, pool=True)
        self.res2 = nn.Sequential(block(w4, w4), block(w4, w4))
        self.head = nn.Sequential(
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(w4, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) with sides of at least 8 to logits (B, classes)."""
        x = self.conv2(self.conv1(x))  # (B, w2, H/2, W/2)
        x = self.res1(x) + x if self.residual else self.res1(x)
        x = self.conv4(self.conv3(x))  # (B, w4, H/8, W/8)
        x = self.res2(x) + x if self.residual else self.res2(x)
        logits: Tensor = self.head(x)
        return logits
