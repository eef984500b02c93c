"""Recipes: functions that return a configuration.

A recipe's epochs, batch size and learning rate are made for CIFAR-100. `training.fitting` adapts
them to other numbers of pictures. Values that are passed to a recipe are not adapted.

To add a recipe, write its function and name it in `__all__`. The command line, the exports of the
package and the documentation follow.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hundredfold.config import FLEXIBLE, Config

__all__ = [  # noqa: RUF022  # the order in which the command line lists them
    "fast",
    "quick",
    "medium",
    "strong",
    "best",
    "gpu",
    "probe",
    "finetune",
    "tutorial",
    "tutorial_400",
]


def _recipe(changes: Mapping[str, Any], **values: Any) -> Config:
    """Return a configuration with a recipe's values and the caller's changes to them."""
    flexible = {name: kind(values[name]) for name, kind in FLEXIBLE.items()}
    return Config(**{**values, **flexible, **changes})


def fast(**changes: Any) -> Config:
    """A small network that trains in minutes on a CPU, on fine labels.

    Coarse predictions are sums of the fine probabilities. `hundredfold train fast` on CIFAR-100,
    n = 10: coarse 71.97 % (std 0.30), fine 59.39 % (0.24), single view; 64 s (2) in total on two
    cores of an AMD EPYC (AVX2), torch 2.14.1 (benchmarks/results/2026-11-29-fast.json).

    Examples:
        >>> fast(epochs=6.0).epochs
        6.0
    """
    return _recipe(
        changes,
        name="fast",
        pad=1,
        epochs=4.2,
        batch_size=512,
        optimizer="muon",
        lr=0.15,
        muon_lr=0.15,
        bias_lr=8.0,
        warmup=0.1,
        label_smoothing=0.2,
        sizes=(24, 32),
    )


def quick(**changes: Any) -> Config:
    """A narrower `fast`, for trainings of less than a minute.

    Examples:
        >>> quick(data="sample").data
        'sample'
    """
    return _recipe(
        changes,
        name="quick",
        pad=2,
        widths=(48, 96, 192),
        epochs=2.0,
        batch_size=256,
        optimizer="muon",
        lr=0.15,
        muon_lr=0.2,
        bias_lr=1.0,
        warmup=0.2,
        label_smoothing=0.2,
        sizes=(24, 32),
    )


def medium(**changes: Any) -> Config:
    """`strong` with fewer channels, for budgets between those of `fast` and `strong`.

    Examples:
        >>> medium(seed=1).seed
        1
    """
    return _recipe(
        changes,
        name="medium",
        pad=2,
        model="whiteresnet",
        widths=(64, 128, 256),
        epochs=10.0,
        batch_size=512,
        optimizer="muon",
        lr=1.0,
        muon_lr=0.15,
        bias_lr=1.0,
        momentum=0.85,
        lookahead=0.95,
        warmup=0.2,
        label_smoothing=0.2,
        sizes=(20, 24, 32),
    )


def strong(**changes: Any) -> Config:
    """A deeper network at full resolution, for half an hour on a CPU.

    `hundredfold train strong --validation 0.02` on CIFAR-100, n = 3: fine 75.54 % (std 0.24),
    coarse 84.91 % (0.23), single view; 24 min on two cores of an AMD EPYC (AVX2), torch 2.14.1
    (benchmarks/results/2026-11-29-strong.json).

    Examples:
        >>> strong(budget="30min").budget
        '30min'
    """
    return _recipe(
        changes,
        name="strong",
        pad=2,
        model="whiteresnet",
        epochs=18.0,
        batch_size=512,
        optimizer="muon",
        lr=1.0,
        muon_lr=0.15,
        bias_lr=1.0,
        momentum=0.85,
        lookahead=0.95,
        warmup=0.2,
        label_smoothing=0.2,
        sizes=(20, 24, 32),
    )


def best(**changes: Any) -> Config:
    """`strong` with more channels and augmentation, for two hours on a CPU.

    `hundredfold train best` on CIFAR-100, n = 2: fine 78.59 % (std 0.23), coarse 87.47 % (0.17),
    single view; 79.82 % (0.21) and 88.10 % (0.01) with flip TTA. 125 min on two cores of an AMD
    EPYC (AVX2), 113 min on two cores of an Intel Xeon (AMX), torch 2.14.1
    (benchmarks/results/2026-11-29-best.json, 2026-11-30-best-bfloat16.json).

    Examples:
        >>> best(validation=0.1).validation
        0.1
    """
    return _recipe(
        changes,
        name="best",
        validation=0.02,
        pad=2,
        color_jitter=0.2,
        cutmix=0.25,
        model="whiteresnet",
        widths=(64, 256, 768),
        epochs=38.0,
        batch_size=512,
        optimizer="muon",
        lr=1.0,
        muon_lr=0.15,
        bias_lr=1.0,
        momentum=0.85,
        weight_decay=0.0013,
        lookahead=0.95,
        warmup=0.2,
        label_smoothing=0.25,
        sizes=(24, 32),
    )


def gpu(**changes: Any) -> Config:
    """The network of `best` for a GPU, trained on all training pictures.

    It holds no pictures out, so its probabilities are not calibrated. On CIFAR-100, n = 20: fine
    75.55 % (std 0.23), coarse 85.00 % (0.20), single view; 4.71 s (0.11) from pictures in memory to
    a trained network on an H100, torch 2.11.0 (benchmarks/results/2026-11-27-gpu.json).

    Examples:
        >>> gpu().validation
        0.0
    """
    return _recipe(
        changes,
        name="gpu",
        validation=0.0,
        pad=2,
        model="whiteresnet",
        widths=(64, 256, 768),
        epochs=9.0,
        batch_size=500,
        optimizer="muon",
        lr=1.0,
        muon_lr=0.15,
        bias_lr=1.0,
        momentum=0.85,
        lookahead=0.95,
        warmup=0.2,
        label_smoothing=0.2,
        sizes=(24, 32),
    )


def probe(**changes: Any) -> Config:
    """A linear head on pretrained features, for photos: an accurate model in seconds.

    The network is EfficientNet-Lite0, pretrained on ImageNet; its weights are installed with
    hundredfold.

    Examples:
        >>> probe(data="photos").epochs
        0.0
    """
    return _recipe(
        changes,
        name="probe",
        size=224,
        validation=0.1,
        flip="random",
        model="timm:tf_efficientnet_lite0",
        weights="installed",
        epochs=0.0,
        batch_size=32,
        optimizer="adamw",
        lr=1e-3,
    )


def finetune(**changes: Any) -> Config:
    """`probe`, and then all but the first layers are trained: for photos, in minutes on a CPU.

    Examples:
        >>> finetune(budget="5min").frozen
        0.33
    """
    return _recipe(
        changes,
        name="finetune",
        size=224,
        validation=0.1,
        crop_area=0.5,
        color_jitter=0.1,
        flip="random",
        model="timm:tf_efficientnet_lite0",
        weights="installed",
        frozen=0.33,
        epochs=0.2,
        batch_size=32,
        optimizer="adamw",
        lr=3e-4,
        layer_decay=0.9,
        weight_decay=0.02,
        schedule="one_cycle",
        warmup=0.2,
    )


def tutorial(**changes: Any) -> Config:
    """The recipe of the tutorial notebook: ResNet-9, evaluated on the test set.

    Each epoch is evaluated on the test set because the notebook does so. There is one difference:
    the standard deviations of the channels are those of all pixels, not the mean of the deviations
    within each picture (docs/LOG.md, 2026-11-25).

    Examples:
        >>> tutorial().labels
        'coarse'
    """
    return _recipe(
        changes,
        name="tutorial",
        labels="coarse",
        validation=0.0,
        validate_on="test",
        pad=4,
        flip="random",
        model="resnet9",
        epochs=8.0,
        batch_size=64,
        optimizer="adam",
        lr=0.01,
        weight_decay=1e-4,
        clip_value=0.1,
        schedule="one_cycle",
        warmup=0.3,
        label_smoothing=0.0,
    )


def tutorial_400(**changes: Any) -> Config:
    """`tutorial` with batches of 400 pictures, as in a variant of the notebook.

    Examples:
        >>> tutorial_400().batch_size
        400
    """
    return _recipe(
        changes,
        name="tutorial-400",
        labels="coarse",
        validation=0.0,
        validate_on="test",
        pad=4,
        flip="random",
        model="resnet9",
        epochs=8.0,
        batch_size=400,
        optimizer="adam",
        lr=0.01,
        weight_decay=1e-4,
        clip_value=0.1,
        schedule="one_cycle",
        warmup=0.3,
        label_smoothing=0.0,
    )


RECIPES: Mapping[str, Callable[..., Config]] = {
    name.replace("_", "-"): globals()[name] for name in __all__
}
"""The recipes by the names that the command line gives them."""
