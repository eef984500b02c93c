"""Cross-validate the head of a pretrained model, if one test split says too little."""

import hashlib
import statistics
import time
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.data.dataset import Split
from hundredfold.data.related import connected
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.metrics.scores import top_k
from hundredfold.models.build import build_model
from hundredfold.support.device import placed
from hundredfold.training.head import head_views, held_out, held_out_logits, view_features
from hundredfold.training.setup import Setup

FOLDS, REPEATS = 5, 3


def cross_validate(setup: Setup, test: Split, strength: float) -> dict[str, Any]:
    """Return the cross-validated accuracy of a head on pretrained features of all pictures.

    Every picture is classified by heads that were fitted without it and without the pictures that
    belong to it: those with the same pixels, and those of its group (`Split.groups`). The folds are
    stratified by class. As in `fit_head`, heads may be fitted to mirror images as well.

    A data set that comes with its own test split has no groups among its test pictures, so near
    duplicates of those are not kept together.

    Args:
        setup: the training and validation pictures, and the configuration of a pretrained model.
        test: the test pictures.
        strength: strength of the penalty of the head, as in `models.logistic`.

    Returns:
        `accuracy`, the mean over the repeats (0..1); `std`, their standard deviation; `interval`,
        the 95 % interval for this number of `pictures`; `folds`, `repeats` and `seconds`. Empty if
        all pictures belong together, so that none can be held out.

    Raises:
        UserError, UnavailableError: the pretrained weights are no longer there.
    """
    started, splits = time.perf_counter(), [setup.train_split, held_out(setup), test]
    groups = group_pictures(splits)
    if len(groups.unique()) < 2:
        return {}
    model = placed(build_model(setup.info, setup.config.weights), setup.device)
    views = view_features(model, splits, setup, views=head_views(setup))
    labels = torch.cat([split.labels.cpu() for split in splits])
    classes, balance = len(setup.info.classes), setup.balances_head
    accuracies = []
    for repeat in range(REPEATS):
        rng = generator(setup.config.seed, "cross-validation", repeat)
        folds = stratified_folds(labels, FOLDS, rng, groups)
        logits = held_out_logits(views, labels, classes, folds, strength, balance=balance)
        accuracies.append(top_k(logits, labels, 1))
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


def group_pictures(splits: list[Split]) -> Tensor:
    """Return the group (N,) of each picture of all splits: the lowest place of a picture in it.

    Pictures with the same pixels are in one group, and so are those of one group of the splits.
    """
    first: dict[Hashable, int] = {}
    keys = enumerate(key for split in splits for key in _keys(split))
    pairs = [(first.setdefault(key, place), place) for place, own in keys for key in own]
    return torch.tensor(connected(sum(map(len, splits)), pairs))


def _keys(split: Split) -> Iterator[list[Hashable]]:
    """Yield for each picture of a split what it has in common with the pictures of its group."""
    groups = [] if split.groups is None else split.groups.tolist()
    place = 0
    for part in split.parts():
        for picture in part.cpu():
            pixels = hashlib.blake2b(picture.contiguous().numpy().data, digest_size=16).digest()
            yield [pixels, *groups[place : place + 1]]
            place += 1
