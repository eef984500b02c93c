"""Cross-validate the head of a pretrained model, if one test split says too little."""

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.data.dataset import Split
from hundredfold.inference.features import cached_features
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.models.build import build_model
from hundredfold.models.logistic import fit_heads
from hundredfold.support.device import memory_format
from hundredfold.training.head import held_out
from hundredfold.training.setup import Setup

FOLDS, REPEATS = 5, 3


def cross_validate(setup: Setup, test: Split, strength: float) -> dict[str, Any]:
    """Return the cross-validated accuracy of a head on pretrained features of all pictures.

    Every picture is classified by heads that were fitted without it and without the pictures that
    belong to it: copies, near duplicates and its group. The folds are stratified by class.

    Args:
        setup: the training and validation pictures, and the configuration of a pretrained model.
        test: the test pictures.
        strength: strength of the penalty of the head, as in `models.logistic`.

    Returns:
        `accuracy`, the mean over the repeats (0..1); `std`, their standard deviation; `interval`,
        the 95 % interval for this number of `pictures`; `folds`, `repeats` and `seconds`.
    """
    started, splits = time.perf_counter(), [setup.train_split, held_out(setup), test]
    model = build_model(setup.info, setup.config.weights).to(setup.device)
    model = model.to(memory_format=memory_format(setup.device))
    features = torch.cat([cached_features(model, split.parts(), setup.info) for split in splits])
    labels = torch.cat([split.labels.cpu() for split in splits])
    groups = _groups(splits)
    accuracies = []
    for repeat in range(REPEATS):
        rng = generator(setup.config.seed, "cross-validation", repeat)
        folds = stratified_folds(labels, FOLDS, rng, groups)
        correct = _correct(features, labels, folds, setup, strength)
        accuracies.append(correct.double().mean().item())
    accuracy = statistics.mean(accuracies)
    return {
        "accuracy": accuracy,
        "std": statistics.stdev(accuracies),
        "interval": list(wilson_interval(accuracy, len(labels))),
        "pictures": len(labels),
        "folds": FOLDS,
        "repeats": REPEATS,
        "seconds": time.perf_counter() - started,
    }


def _groups(splits: list[Split]) -> Tensor | None:
    """Return the group of each picture of all splits; None if there are no groups."""
    groups = [split.groups.cpu() for split in splits if split.groups is not None]
    return torch.cat(groups) if len(groups) == len(splits) else None


def _correct(
    features: Tensor, labels: Tensor, folds: Tensor, setup: Setup, strength: float
) -> Tensor:
    """Return whether each picture (N,) is classified correctly by a head of the other folds."""
    weights = setup.class_weights
    weights = weights.cpu() if weights is not None else None
    correct = torch.zeros(len(labels), dtype=torch.bool)
    for fold in range(FOLDS):
        held = folds == fold
        if not held.any() or held.all():
            continue
        (head,) = fit_heads(
            features[~held], labels[~held], len(setup.info.classes), (strength,), weights
        )
        correct[held] = head(features[held]).argmax(1) == labels[held]
    return correct
