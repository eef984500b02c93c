"""Fit a recipe to the number of training pictures."""

import math
from dataclasses import replace

from torch import Tensor

from hundredfold.config import FLEXIBLE, Config, FlexibleInt

CIFAR_PICTURES = 47_500
"""Number of training pictures that the recipes are made for: CIFAR-100 less those held out."""
MOST_EPOCHS = 60.0
"""Most epochs on a small set of pictures, unless the recipe itself has more."""
MOST_TUNING_EPOCHS = 20.0
"""The same for a pretrained model: after that, it knows a small set by heart."""
SMALLEST_BATCH = 16
STEPS_PER_EPOCH = 16
"""Steps per epoch on a small set of pictures, approximately: the batch size is chosen for this."""
UNEQUAL = 10
"""Size of the largest class, relative to the smallest, from which `auto` balances the classes."""


def balanced(config: Config, labels: Tensor) -> Config:
    """Return a configuration whose `balance` is decided: `auto` becomes loss or none.

    Args:
        config: a configuration.
        labels: (N,) int64, of the training pictures, including those that are held out for
            validation. Classes without pictures do not count.
    """
    if config.balance != "auto":
        return config
    counts = labels.bincount()
    counts = counts[counts > 0]
    unequal = len(counts) > 0 and int(counts.max()) >= UNEQUAL * int(counts.min())
    return replace(config, balance="loss" if unequal else "none")


def fitted(config: Config, pictures: int) -> Config:
    """Return a configuration whose flexible values fit a number of training pictures.

    With fewer pictures than CIFAR-100 has, there are more epochs, up to MOST_EPOCHS. Batches are
    smaller, so that an epoch has about STEPS_PER_EPOCH steps. The learning rate falls with the
    square root of the batch size (Malladi et al., "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms", 2022, for Adam). Muon's learning rate for convolutions stays the same,
    because the norm of its steps does not depend on the batch size. docs/LOG.md has the
    measurements.

    Args:
        config: a configuration; values that are not flexible stay as they are.
        pictures: number of training pictures, including those that are held out for validation.

    Returns:
        A configuration without flexible values.
    """
    pictures = max(1, pictures)
    epochs = config.epochs * max(1.0, CIFAR_PICTURES / pictures)
    batch, scale = config.batch_size, 1.0
    if isinstance(batch, FlexibleInt):
        wanted = 2 ** round(math.log2(pictures / STEPS_PER_EPOCH))
        batch = int(min(batch, max(SMALLEST_BATCH, wanted)))
        scale = min(batch, pictures) / config.batch_size
    most = MOST_TUNING_EPOCHS if config.weights else MOST_EPOCHS
    values = {
        "epochs": round(min(epochs, max(most, config.epochs)), 2),
        "batch_size": batch,
        "lr": config.lr * scale**0.5,
    }
    flexible = [name for name, kind in FLEXIBLE.items() if isinstance(getattr(config, name), kind)]
    return replace(config, **{name: values[name] for name in flexible})
