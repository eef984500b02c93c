"""Choose how pictures become squares, by cross-validation on pretrained features."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.config import Config
from hundredfold.data import cifar100
from hundredfold.data.collection import list_pictures, median_ratio
from hundredfold.data.dataset import Dataset
from hundredfold.data.load import find_source, load_to_train
from hundredfold.inference.features import cached_features
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.metrics.scores import top_k
from hundredfold.models.build import build_model
from hundredfold.pictures.load import load_parts
from hundredfold.pictures.pixels import Fit
from hundredfold.support.console import counted, say
from hundredfold.support.device import fork_rng, keep_memory, pick_device, placed
from hundredfold.support.units import parse_duration
from hundredfold.training.head import held_out_logits
from hundredfold.training.setup import make_setup

FITS: tuple[Fit, ...] = ("crop", "pad", "squash")
OBLONG = 1.1
"""Ratio of the sides of the median picture from which on the fit matters."""
SAMPLES = {120.0: 500, 60.0: 250, 0.0: 0}
"""Most pictures by which a fit is chosen, by the least time budget in seconds. Choosing by 500
takes up to twenty seconds."""
FOLDS = 5
"""Number of folds of the cross-validation."""
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

    A fit is chosen only for a pretrained model and oblong pictures, and not if a time budget is
    very short. It is `crop`, unless another one lowers the loss by more than its standard error.

    Args:
        config: the configuration.
        tell: receives sentences about the data and about the choice.

    Raises:
        UserError, UnavailableError: as `load_data` and `make_setup` do.
    """
    loaded, started = Loaded(*load_to_train(config, tell)), time.perf_counter()
    budget = parse_duration(config.budget) if config.budget else math.inf
    sample = next(count for least, count in SAMPLES.items() if budget >= least)
    if config.fit != "auto" or not config.weights or not sample:
        return loaded
    path, dataset = find_source(config.data), loaded.dataset
    if path is None or cifar100.is_at(path):
        return loaded
    by_name = {entry.name: entry.path for entry in list_pictures(path).entries}
    paths = [by_name[name] for name in dataset.train.names]  # no test pictures
    if median_ratio(paths) < OBLONG or len(paths) < FEWEST:
        return loaded
    logits, labels = _held_out_logits(loaded.config, dataset, paths, sample)
    if not logits:
        return loaded
    losses = {fit: F.cross_entropy(logits[fit], labels, reduction="none") for fit in FITS}
    best: Fit = "crop"
    for fit in FITS[1:]:
        gain = losses[best] - losses[fit]
        if gain.mean() > gain.std() / len(gain) ** 0.5:
            best = fit
    means = ", ".join(f"{fit} {losses[fit].mean():.3f}" for fit in FITS)
    accuracy = top_k(logits[best], labels, 1)
    low, high = wilson_interval(accuracy, len(labels))
    tell(
        f"The pictures are not square. They are made square by --fit {best}. In a cross-validation "
        f"of pretrained features, {accuracy:.1%} of {len(labels):,} training pictures are then "
        f"classified correctly (95 % interval {100 * low:.1f} to {100 * high:.1f}). The losses of "
        f"the three ways to make pictures square: {means}."
    )
    if best != "crop":
        loaded = Loaded(*load_to_train(replace(config, fit=best), lambda _: None))
    return loaded._replace(started=started)


def _held_out_logits(
    config: Config, dataset: Dataset, paths: list[Path], sample: int
) -> tuple[dict[Fit, Tensor], Tensor]:
    """Return the cross-validated logits (N, C) of N training pictures by the fit, and labels (N,).

    There are no logits if all pictures belong together, so that none can be held out.

    Args:
        config: the configuration of a pretrained model.
        dataset: the data set.
        paths: path of each training picture.
        sample: most pictures to choose by.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        keep_memory()  # as in training
    with fork_rng(device):
        info = make_setup(config, dataset.with_labels(config.labels), device).info
        model = build_model(info, config.weights)
    model = placed(model, device)
    order = torch.randperm(len(paths), generator=generator(config.seed, "fit"))[:sample]
    train = dataset.with_labels(config.labels).train.select(order)
    chosen = [paths[i] for i in order.tolist()]
    rng, logits = generator(config.seed, "fit", "folds"), dict[Fit, Tensor]()
    folds = stratified_folds(train.labels, FOLDS, rng, train.groups)
    if len(folds.unique()) < 2:
        return {}, train.labels
    with counted("Choosing the fit", len(FITS) * len(chosen)) as advance:
        for fit in FITS:
            parts = load_parts(chosen, info.image_size, fit)
            features = cached_features(model, parts, info, advance)
            logits[fit] = held_out_logits(features[None], train.labels, len(info.classes), folds)
    return logits, train.labels
