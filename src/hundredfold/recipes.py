"""Named recipes: functions that return a configuration."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hundredfold.config import Config

CIFAR_PICTURES = 47_500
"""Training pictures of CIFAR-100 without those held out, which the recipes are made for."""
MOST_EPOCHS = 60.0
"""Of a set of few pictures."""
FEWEST = 16
"""Pictures of a batch."""


def fast(**changes: Any) -> Config:
    """A small network, trained in minutes on a CPU; fine labels, coarse by summed probabilities.

    `hundredfold train fast` on CIFAR-100, n = 10: coarse 71.85 % (std 0.32), fine 59.18 % (0.26),
    single view; 99 s (3) in all on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-27-fast.json).
    """
    values: dict[str, Any] = {
        "name": "fast",
        "pad": 1,
        "epochs": 4.2,
        "batch_size": 512,
        "optimizer": "muon",
        "lr": 0.15,
        "muon_lr": 0.15,
        "bias_lr": 8.0,
        "warmup": 0.1,
        "label_smoothing": 0.2,
        "sizes": (24, 32),
    }
    return Config(**(values | changes))


def quick(**changes: Any) -> Config:
    """`fast` with fewer channels and its former rates: for less than a minute."""
    values: dict[str, Any] = {
        "name": "quick",
        "pad": 2,
        "widths": (48, 96, 192),
        "epochs": 2.0,
        "batch_size": 256,
        "muon_lr": 0.2,
        "bias_lr": 1.0,
        "warmup": 0.2,
    }
    return fast(**(values | changes))


def strong(**changes: Any) -> Config:
    """A deeper network at full resolution, for three quarters of an hour on a CPU.

    `hundredfold train strong` on CIFAR-100, n = 2: fine 75.56 % (std 0.28), coarse 84.87 % (0.23),
    single view; 44 min (2) on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-27-strong.json).
    """
    values: dict[str, Any] = {
        "name": "strong",
        "pad": 2,
        "model": "whiteresnet",
        "epochs": 20.0,
        "lr": 1.0,
        "bias_lr": 1.0,
        "momentum": 0.85,
        "lookahead": 0.95,
        "warmup": 0.2,
        "sizes": (20, 24, 32),
    }
    return fast(**(values | changes))


def medium(**changes: Any) -> Config:
    """`strong` with fewer channels: for ten minutes and more on a CPU."""
    return strong(**({"name": "medium", "widths": (64, 128, 256), "epochs": 10.0} | changes))


def best(**changes: Any) -> Config:
    """`strong` with more channels, for an hour and a half on a CPU.

    `hundredfold train best --budget 82min` on CIFAR-100, n = 1: fine 76.77 %, coarse 85.59 %,
    single view; 78.20 % and 86.92 % with flip TTA; 18.1 epochs on two cores of an AMD EPYC (AVX2),
    torch 2.14.1 (benchmarks/results/2026-11-27-best.json).
    """
    values: dict[str, Any] = {
        "name": "best",
        "validation": 0.02,
        "widths": (64, 256, 768),
        "epochs": 18.0,
    }
    return strong(**(values | changes))


def gpu(**changes: Any) -> Config:
    """The network of `best` for a GPU, on all training pictures.

    None are held out, so probabilities are not calibrated. On CIFAR-100, n = 20: fine 75.55 % (std
    0.23), coarse 85.00 % (0.20), single view; 4.71 s (0.11) from pictures in memory to a trained
    network on an H100, torch 2.11.0 (benchmarks/results/2026-11-27-gpu.json).
    """
    values: dict[str, Any] = {
        "name": "gpu",
        "epochs": 9.0,
        "batch_size": 500,
        "validation": 0.0,
        "sizes": (24, 32),
    }
    return best(**(values | changes))


def finetune(**changes: Any) -> Config:
    """A pretrained timm model: first its head learns alone, then all of it. For small sets.

    Needs `pip install 'hundredfold[timm]'`, and a network once or a file of weights (--weights).
    Not measured here: no pretrained weights were at hand.
    """
    values: dict[str, Any] = {
        "name": "finetune",
        "model": "timm:resnet18",
        "weights": "hub",
        "freeze": 0.3,
        "epochs": 5.0,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "label_smoothing": 0.1,
    }
    return Config(**(values | changes))


def tutorial(**changes: Any) -> Config:
    """The tutorial notebook's recipe: ResNet-9, an hour or more; judged on the test set, as there.

    Its one difference: the channels' deviations are those of all pixels, not the mean of the
    deviations within each picture (docs/LOG.md, 2026-11-25).
    """
    values: dict[str, Any] = {
        "name": "tutorial",
        "labels": "coarse",
        "validation": 0.0,
        "validate_on": "test",
        "pad": 4,
        "flip": "random",
        "model": "resnet9",
        "epochs": 8.0,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 0.01,
        "weight_decay": 1e-4,
        "clip_value": 0.1,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "label_smoothing": 0.0,
    }
    return Config(**(values | changes))


def tutorial_400(**changes: Any) -> Config:
    """The tutorial's own variant: batches of 400."""
    return tutorial(**({"name": "tutorial-400", "batch_size": 400} | changes))


def fitted(config: Config, pictures: int) -> Config:
    """Return a recipe with epochs and a batch size for fewer pictures than CIFAR-100 has.

    As many pictures pass as on CIFAR-100, but none more than MOST_EPOCHS times; a batch has a
    sixteenth of the pictures, and from FEWEST to as many as on CIFAR-100. These are rules of thumb,
    measured nowhere yet.

    Args:
        config: a recipe as it is for CIFAR-100.
        pictures: how many there are to train on.
    """
    if pictures >= CIFAR_PICTURES / 2:
        return config
    epochs = min(config.epochs * CIFAR_PICTURES / pictures, max(config.epochs, MOST_EPOCHS))
    batch = min(config.batch_size, max(FEWEST, 2 ** round(math.log2(max(2, pictures) / 16))))
    return replace(config, epochs=float(round(epochs)), batch_size=batch)


RECIPES: Mapping[str, Callable[..., Config]] = {
    "fast": fast,
    "quick": quick,
    "medium": medium,
    "strong": strong,
    "best": best,
    "gpu": gpu,
    "finetune": finetune,
    "tutorial": tutorial,
    "tutorial-400": tutorial_400,
}
