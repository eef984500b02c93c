"""Named recipes: functions that return a configuration.

A recipe's epochs, batch size and learning rates are those for CIFAR-100. `fitted` makes them fit
other numbers of pictures; a value that is passed to a recipe stays as it is.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hundredfold.config import Config, FlexibleFloat, FlexibleInt

CIFAR_PICTURES = 47_500
"""Training pictures of CIFAR-100 without those held out, which the recipes are made for."""
MOST_EPOCHS = 60.0
"""Of a set of few pictures."""
SMALLEST_BATCH = 16
STEPS_AN_EPOCH = 16
"""That the batches of a small set are made for."""
FLEXIBLE: Mapping[str, type[FlexibleFloat] | type[FlexibleInt]] = {
    "epochs": FlexibleFloat,
    "batch_size": FlexibleInt,
    "lr": FlexibleFloat,
}
"""What `fitted` may change where a recipe's own value stands."""

Values = Mapping[str, Any]


def _recipe(values: Values, changes: Values) -> Config:
    """Return a configuration of a recipe's values and of what the caller changes."""
    own = {name: kind(values[name]) for name, kind in FLEXIBLE.items() if name in values}
    return Config(**{**values, **own, **changes})


FAST: Values = {
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


def fast(**changes: Any) -> Config:
    """A small network, trained in minutes on a CPU; fine labels, coarse by summed probabilities.

    `hundredfold train fast` on CIFAR-100, n = 10: coarse 71.85 % (std 0.32), fine 59.18 % (0.26),
    single view; 99 s (3) in all on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-27-fast.json).
    """
    return _recipe(FAST, changes)


QUICK: Values = {
    **FAST,
    "name": "quick",
    "pad": 2,
    "widths": (48, 96, 192),
    "epochs": 2.0,
    "batch_size": 256,
    "muon_lr": 0.2,
    "bias_lr": 1.0,
    "warmup": 0.2,
}


def quick(**changes: Any) -> Config:
    """`fast` with fewer channels and its former rates: for less than a minute."""
    return _recipe(QUICK, changes)


STRONG: Values = {
    **FAST,
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


def strong(**changes: Any) -> Config:
    """A deeper network at full resolution, for three quarters of an hour on a CPU.

    `hundredfold train strong` on CIFAR-100, n = 2: fine 75.56 % (std 0.28), coarse 84.87 % (0.23),
    single view; 44 min (2) on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-27-strong.json).
    """
    return _recipe(STRONG, changes)


def medium(**changes: Any) -> Config:
    """`strong` with fewer channels: for ten minutes and more on a CPU."""
    values = {**STRONG, "name": "medium", "widths": (64, 128, 256), "epochs": 10.0}
    return _recipe(values, changes)


BEST: Values = {
    **STRONG,
    "name": "best",
    "validation": 0.02,
    "widths": (64, 256, 768),
    "epochs": 18.0,
}


def best(**changes: Any) -> Config:
    """`strong` with more channels, for an hour and a half on a CPU.

    `hundredfold train best --budget 82min` on CIFAR-100, n = 1: fine 76.77 %, coarse 85.59 %,
    single view; 78.20 % and 86.92 % with flip TTA; 18.1 epochs on two cores of an AMD EPYC (AVX2),
    torch 2.14.1 (benchmarks/results/2026-11-27-best.json).
    """
    return _recipe(BEST, changes)


GPU: Values = {
    **BEST,
    "name": "gpu",
    "epochs": 9.0,
    "batch_size": 500,
    "validation": 0.0,
    "sizes": (24, 32),
}


def gpu(**changes: Any) -> Config:
    """The network of `best` for a GPU, on all training pictures.

    None are held out, so probabilities are not calibrated. On CIFAR-100, n = 20: fine 75.55 % (std
    0.23), coarse 85.00 % (0.20), single view; 4.71 s (0.11) from pictures in memory to a trained
    network on an H100, torch 2.11.0 (benchmarks/results/2026-11-27-gpu.json).
    """
    return _recipe(GPU, changes)


FINETUNE: Values = {
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


def finetune(**changes: Any) -> Config:
    """A pretrained timm model: first its head learns alone, then all of it. For small sets.

    Needs `pip install 'hundredfold[timm]'`, and a network once or a file of weights (--weights).
    Not measured here: no pretrained weights were at hand.
    """
    return _recipe(FINETUNE, changes)


TUTORIAL: Values = {
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


def tutorial(**changes: Any) -> Config:
    """The tutorial notebook's recipe: ResNet-9, an hour or more; judged on the test set, as there.

    Its one difference: the channels' deviations are those of all pixels, not the mean of the
    deviations within each picture (docs/LOG.md, 2026-11-25).
    """
    return _recipe(TUTORIAL, changes)


def tutorial_400(**changes: Any) -> Config:
    """The tutorial's own variant: batches of 400."""
    return _recipe({**TUTORIAL, "name": "tutorial-400", "batch_size": 400}, changes)


def fitted(config: Config, pictures: int) -> Config:
    """Return a configuration whose flexible values fit a number of training pictures.

    Fewer pictures than CIFAR-100 has are shown more often, up to MOST_EPOCHS times. Batches get
    smaller, so that an epoch has STEPS_AN_EPOCH steps. The learning rate falls with the square root
    of the batch size (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms", 2022, for Adam). Muon's own rate stays: it holds the norms of its steps, whatever
    the batch. docs/LOG.md has the measurements.

    Args:
        config: as a recipe or a person has it; values that are not flexible stay as they are.
        pictures: number of pictures to train on, held-out ones included.

    Returns:
        A configuration without flexible values.
    """
    pictures = max(1, pictures)
    epochs = config.epochs * max(1.0, CIFAR_PICTURES / pictures)
    batch, share = config.batch_size, 1.0
    if isinstance(batch, FlexibleInt):
        steps_fit = 2 ** round(math.log2(pictures / STEPS_AN_EPOCH))
        batch = int(min(batch, max(SMALLEST_BATCH, steps_fit)))
        share = min(batch, pictures) / config.batch_size
    found = {
        "epochs": round(min(epochs, max(MOST_EPOCHS, config.epochs)), 2),
        "batch_size": batch,
        "lr": config.lr * share**0.5,
    }
    flexible = [name for name, kind in FLEXIBLE.items() if isinstance(getattr(config, name), kind)]
    return replace(config, **{name: found[name] for name in flexible})


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
