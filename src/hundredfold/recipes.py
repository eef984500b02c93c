"""Named recipes: functions that return a configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from hundredfold.config import Config


def fast(**changes: Any) -> Config:
    """A small network, trained in minutes on a CPU; fine labels, coarse by summed probabilities.

    `hundredfold train fast` on CIFAR-100, n = 3: coarse 74.32 % (std 0.20), fine 62.20 % (0.40),
    single view; 382 s (13) in all on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-25-fast.json).
    """
    values: dict[str, Any] = {
        "name": "fast",
        "epochs": 6,
        "lr": 0.25,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "label_smoothing": 0.2,
        "lookahead": 0.95,
        "sizes": (24, 32),
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
        "epochs": 8,
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


RECIPES: Mapping[str, Callable[..., Config]] = {
    "fast": fast,
    "tutorial": tutorial,
    "tutorial-400": tutorial_400,
}
