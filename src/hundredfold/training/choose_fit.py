"""Choose how pictures become squares, by cross-validation on pretrained features."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import generator
from hundredfold.config import Config, parse_duration
from hundredfold.data.collection import list_pictures, median_ratio
from hundredfold.data.dataset import Dataset
from hundredfold.data.load import find_source, load_to_train
from hundredfold.inference.features import cached_features
from hundredfold.models.build import build_model
from hundredfold.models.info import ModelInfo
from hundredfold.models.logistic import fit_heads
from hundredfold.pictures.load import load_picture
from hundredfold.pictures.pixels import Fit
from hundredfold.support.console import counted, say
from hundredfold.support.device import fork_rng, memory_format, pick_device
from hundredfold.training.head import DEFAULT_STRENGTH
from hundredfold.training.setup import make_setup

FITS: tuple[Fit, ...] = ("crop", "pad", "squash")
OBLONG = 1.1
"""Ratio of the sides of the median picture from which on the fit matters."""
SAMPLE, FOLDS = 500, 5
"""Number of pictures by which a fit is chosen, and of folds of the cross-validation."""
SHORT = 120.0
"""Time budget in seconds below which no fit is chosen: that takes up to twenty seconds."""
FEWEST = 30
"""Number of pictures that are too few to choose by."""


class Loaded(NamedTuple):
    """Data, and the configuration that fits it."""

    config: Config
    dataset: Dataset
    started: float | None = None
    """Reading of time.perf_counter at the first choice after loading; None if there was none."""


def load_with_best_fit(config: Config, tell: Callable[[str], None] = say) -> Loaded:
    """Load data as `load_to_train` does, and choose the fit if the configuration leaves it open.

    A fit is chosen only for a pretrained model and oblong pictures, and if a time budget is at
    least SHORT. It is `crop`, unless another one lowers the loss by more than its standard error.

    Args:
        config: the configuration.
        tell: receives sentences about the data and about the choice.

    Raises:
        UserError, UnavailableError: as `load_data` and `make_setup` do.
    """
    loaded, started = Loaded(*load_to_train(config, tell)), time.perf_counter()
    path, dataset = find_source(config.data), loaded.dataset
    is_short = bool(config.budget) and parse_duration(config.budget) < SHORT
    if path is None or config.fit != "auto" or not config.weights or is_short:
        return loaded
    by_name = {entry.name: entry.path for entry in list_pictures(path).entries}
    paths = [by_name[name] for name in dataset.train.names]  # no test pictures
    if median_ratio(paths) < OBLONG or len(paths) < FEWEST:
        return loaded
    losses = _losses(loaded.config, dataset, paths)
    best: Fit = "crop"
    for fit in FITS[1:]:
        gain = losses[best] - losses[fit]
        if gain.mean() > gain.std() / len(gain) ** 0.5:
            best = fit
    means = ", ".join(f"{fit} {losses[fit].mean():.3f}" for fit in FITS)
    tell(
        f"The pictures are oblong and become squares by --fit {best}: cross-validation on "
        f"{len(losses[best]):,} training pictures gives the losses {means}."
    )
    if best != "crop":
        loaded = Loaded(*load_to_train(replace(config, fit=best), lambda _: None))
    return loaded._replace(started=started)


def _losses(config: Config, dataset: Dataset, paths: list[Path]) -> dict[Fit, Tensor]:
    """Return the cross-validated loss (N,) in nats of each of N training pictures, by the fit.

    Args:
        config: the configuration of a pretrained model.
        dataset: the data set.
        paths: path of each training picture.
    """
    device = pick_device(config.device)
    with fork_rng(device):
        info = make_setup(config, dataset.with_labels(config.labels), device).info
        model = build_model(info, config.weights)
    model = model.to(device).to(memory_format=memory_format(device))
    order = torch.randperm(len(paths), generator=generator(config.seed, "fit"))[:SAMPLE]
    labels = dataset.with_labels(config.labels).train.labels[order]
    chosen = [paths[i] for i in order.tolist()]
    losses = {}
    with counted("Choosing the fit", len(FITS) * len(chosen)) as advance:
        for fit in FITS:
            features = _features(model, chosen, replace(info, fit=fit), advance)
            losses[fit] = _held_out_losses(features, labels, len(info.classes))
    return losses


def _features(
    model: nn.Module, paths: list[Path], info: ModelInfo, advance: Callable[[int], None]
) -> Tensor:
    """Return the features (N, D) of picture files."""
    load = partial(load_picture, size=info.image_size, fit=info.fit)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        images = torch.stack(list(pool.map(load, paths)))
    return cached_features(model, images.split(500), info, advance)


def _held_out_losses(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the loss (N,) of each picture under a head that was fitted on the other folds."""
    losses, folds = torch.zeros(len(labels)), torch.arange(len(labels)) % FOLDS
    for fold in range(FOLDS):
        held = folds == fold
        (head,) = fit_heads(features[~held], labels[~held], classes, (DEFAULT_STRENGTH,))
        losses[held] = F.cross_entropy(head(features[held]), labels[held], reduction="none")
    return losses
