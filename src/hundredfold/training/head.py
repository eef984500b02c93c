"""Fit the head of a pretrained model to its features of the training pictures.

A linear head on frozen features (a linear probe) takes seconds. Fine-tuning that starts from it
distorts the features less than from a random head (Kumar et al., "Fine-Tuning can Distort
Pretrained Features and Underperform Out-of-Distribution", 2022).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold.augment import balanced_weights, generator
from hundredfold.data.dataset import Split
from hundredfold.inference.features import cached_features, last_linear
from hundredfold.metrics.scores import measure
from hundredfold.models.logistic import STRENGTHS, Head, fit_heads
from hundredfold.models.timm import digest_of_body
from hundredfold.runs.epoch import HeadRecord
from hundredfold.support.console import counted
from hundredfold.support.device import keep_memory
from hundredfold.support.errors import DivergedError
from hundredfold.support.units import parse_duration
from hundredfold.training.setup import Setup

DEFAULT_STRENGTH = 1.0
"""Strength of the penalty without validation pictures, or with fewer than FEW."""
SAMPLE, SAMPLE_PER_SECOND = 1000, 40
"""Most pictures to which a head is fitted before a fine-tuning with a time budget: the first
number, or the second for each second of the budget if that is more. Their features take about a
third of the budget on two cores."""
FEW = 50
"""Number of validation pictures that are too few to choose the strength by."""


@torch.no_grad()
def fit_head(model: nn.Module, setup: Setup) -> tuple[HeadRecord, Tensor]:
    """Fit the head of a pretrained model by logistic regression, in place.

    The strength of the penalty is the one with the lowest loss on the held-out pictures. If only
    the head is trained, it is then fitted again, to the held-out pictures as well, and mirror
    images are used unless `config.flip` is none. Before a short fine-tuning, only a random sample
    of the training pictures is used, because the steps need the time.

    Args:
        model: the pretrained model, on the device of the setup.
        setup: the pictures and the configuration.

    Returns:
        How the head was fitted, and the logits (H, C) of the H held-out pictures under the head
        that was not fitted to them.
    """
    started, train, held = time.perf_counter(), head_split(setup), held_out(setup)
    if setup.device.type == "cpu":
        keep_memory()
    views, again = head_views(setup), not setup.config.epochs and len(held) > 0
    held_views = views if again else views[:1]
    count = len(views) * len(train) + len(held_views) * len(held)
    with counted("Computing features", count) as advance:
        features = view_features(model, [train], setup, views=views, advance=advance)
        held_features = view_features(model, [held], setup, views=held_views, advance=advance)
    rows, labels, held_labels = features.flatten(0, 1), train.labels.cpu(), held.labels.cpu()
    labels, fit = labels.repeat(len(views)), _fit(setup)
    strength, head = _choose_head(partial(fit, rows, labels), held_features[0], held_labels)
    logits, info, metrics = head(held_features[0]), setup.info, {}
    if len(held):
        metrics = measure(logits, held_labels, info.labels, info.parents)
    if again:
        rows = torch.cat([rows, held_features.flatten(0, 1)])
        labels = torch.cat([labels, held_labels.repeat(len(views))])
        head = next(fit(rows, labels, strengths=(strength,)))
    _set_head(model, head)
    pictures, seconds = len(train) + len(held) * again, time.perf_counter() - started
    digest = digest_of_body(model)
    return HeadRecord(seconds, pictures, again, strength, metrics, digest), logits


@torch.no_grad()
def refit_head(model: nn.Module, setup: Setup, record: HeadRecord) -> HeadRecord:
    """Fit the head again, to the held-out pictures as well, in place; return its new record.

    Args:
        model: the pretrained model before fine-tuning, on the device of the setup.
        setup: the pictures and the configuration.
        record: how `fit_head` fitted the head; its strength is used again.
    """
    started, splits = time.perf_counter(), (head_split(setup), held_out(setup))
    features = view_features(model, splits, setup)[0]
    labels = torch.cat([split.labels.cpu() for split in splits])
    _set_head(model, next(_fit(setup)(features, labels, strengths=(record.strength,))))
    seconds = record.seconds + time.perf_counter() - started
    return replace(record, seconds=seconds, pictures=len(labels), refitted=True)


def _fit(setup: Setup) -> Callable[..., Iterator[Head]]:
    """Return `fit_heads` for the classes of a setup; it needs features, labels and strengths."""
    labels, classes = setup.train_split.labels.cpu(), len(setup.info.classes)
    weights = balanced_weights(labels, classes) if setup.balances_head else None
    return partial(fit_heads, classes=classes, class_weights=weights)


def _set_head(model: nn.Module, head: Head) -> None:
    layer = last_linear(model)
    layer.weight.copy_(head.weight)
    layer.bias.copy_(head.bias)


def head_split(setup: Setup) -> Split:
    """Return the training pictures to which the head is fitted: all, or a random sample."""
    config, train = setup.config, setup.train_split
    seconds = parse_duration(config.budget) if config.budget and config.epochs else math.inf
    most = max(SAMPLE, SAMPLE_PER_SECOND * seconds)
    return train if most >= len(train) else train.select(head_order(setup)[: int(most)])


def head_order(setup: Setup) -> Tensor:
    """Return the random order (N,) int64 of training pictures in which a sample is the start."""
    rng = generator(setup.config.seed, "head")
    return torch.randperm(len(setup.train_split), generator=rng)


def held_out(setup: Setup) -> Split:
    """Return the pictures by which training may choose; empty if each epoch sees the test split."""
    split = setup.validation_split
    return split if setup.config.validate_on == "validation" else split[:0]


def head_views(setup: Setup) -> tuple[bool, ...]:
    """Return the views of the training pictures that a head is fitted to: whether each is mirrored.

    Pictures that are fine-tuned afterwards are not mirrored here.
    """
    mirror = setup.config.flip != "none" and not setup.config.epochs
    return (False, True) if mirror else (False,)


def view_features(
    model: nn.Module,
    splits: Sequence[Split],
    setup: Setup,
    *,
    views: Sequence[bool] = (False,),
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Return the features (V, N, D) of the N pictures of some splits in V views.

    Args:
        model: the pretrained model, on the device of the setup.
        splits: the pictures.
        setup: its `info` says how pictures are prepared.
        views: for each view, whether the pictures are mirrored.
        advance: receives the number of pictures just finished.
    """
    rows = [
        cached_features(
            model,
            (part.flip(3) if mirrored else part for part in split.parts()),
            setup.info,
            advance,
        )
        for mirrored in views
        for split in splits
    ]
    return torch.cat(rows).view(len(views), sum(map(len, splits)), last_linear(model).in_features)


def _choose_head(
    fit: Callable[..., Iterator[Head]], held_features: Tensor, held_labels: Tensor
) -> tuple[float, Head]:
    """Return the strength that suits the held-out pictures best, and the head fitted with it.

    Args:
        fit: `fit_heads` for the training pictures; it needs only `strengths`.
        held_features: (H, D).
        held_labels: (H,) int64.
    """
    if len(held_labels) < FEW:
        return DEFAULT_STRENGTH, next(fit(strengths=(DEFAULT_STRENGTH,)))
    best_loss, best = math.inf, None
    for strength, head in zip(STRENGTHS, fit(strengths=STRENGTHS), strict=True):
        loss = F.cross_entropy(head(held_features), held_labels).item()
        if loss >= best_loss:  # a weaker penalty would overfit more
            break
        best_loss, best = loss, (strength, head)
    if best is None:
        raise DivergedError("The pretrained features are not finite numbers.")
    return best


def held_out_logits(
    views: Tensor,
    labels: Tensor,
    classes: int,
    folds: Tensor,
    strength: float = DEFAULT_STRENGTH,
    *,
    balance: bool = False,
) -> Tensor:
    """Return the logits of each picture under a head that was fitted to the other folds.

    Args:
        views: (V, N, D) features of V views of each picture. The first is classified; a head is
            fitted to all views of the pictures of the other folds.
        labels: (N,) int64.
        classes: number of classes C.
        folds: (N,) int64, the fold of each picture.
        strength: strength of the penalty, as in `models.logistic`.
        balance: give each class the same weight in the loss.

    Returns:
        (N, C) float32; zeros if there is a single fold.
    """
    logits = torch.zeros(len(labels), classes)
    for fold in folds.unique():
        held = folds == fold
        if held.all():
            break
        others = labels[~held]
        weights = balanced_weights(others, classes) if balance else None
        rows = views[:, ~held].flatten(0, 1)
        (head,) = fit_heads(rows, others.repeat(len(views)), classes, (strength,), weights)
        logits[held] = head(views[0, held])
    return logits
