"""Judge photos by pretrained features: their labels by logistic regression, and which are alike."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.audit.duplicates import NearDuplicate
from hundredfold.audit.labels import FOLDS, LabelIssue, find_label_issues
from hundredfold.audit.near_photos import find_near_photos
from hundredfold.audit.pictures import AuditedPictures
from hundredfold.augment import generator
from hundredfold.data.collection import choose_size
from hundredfold.data.related import connected, equal_places
from hundredfold.inference.features import cached_features, feature_network
from hundredfold.metrics.folds import stratified_folds
from hundredfold.models.architectures import TIMM
from hundredfold.models.installed import is_installed
from hundredfold.models.levels import LAST_FEATURES
from hundredfold.pictures.load import load_parts
from hundredfold.recipes import probe
from hundredfold.support.console import counted
from hundredfold.support.device import keep_memory, placed
from hundredfold.training.head import held_out_logits

MIN_SIDE = 64
"""Smallest side in pixels of photos: pretrained features suit smaller pictures less."""
MIN_PHOTOS = 30
"""Fewest photos whose labels are checked."""
STRENGTH = 5.0
"""Strength of the penalty. It is higher than in training, so that the head does not learn wrong
labels by heart (docs/LOG.md)."""


def why_no_features(pictures: AuditedPictures) -> str:
    """Return why pretrained features are not used; an empty string if they are.

    They are used if their weights are installed and the pictures are photos: files whose median has
    a shorter side of at least MIN_SIDE.
    """
    if not pictures.paths:
        return "the pictures are not files"
    if choose_size(pictures.paths) < MIN_SIDE:
        return f"the shorter side of the median picture is below {MIN_SIDE} pixels"
    if not is_installed(probe().model.removeprefix(TIMM)):
        return "the pretrained weights are not installed"
    return ""


def judge_by_features(
    pictures: AuditedPictures, *, labels: bool, near: bool
) -> tuple[list[LabelIssue], list[NearDuplicate]]:
    """Return likely label errors and near duplicates among photos, by pretrained features.

    Raises:
        UserError: a file can no longer be read, or the weights are damaged.
    """
    if not (labels or near):
        return [], []
    with counted("Computing features", len(pictures)) as advance:
        features = photo_features(pictures, advance)
    issues: list[LabelIssue] = []
    pairs: list[NearDuplicate] = []
    if labels:
        issues = find_label_issues(predict_by_features(features, pictures), pictures.labels)
    if near:
        with counted("Comparing", len(pictures)) as advance:
            pairs = find_near_photos(features[:, :LAST_FEATURES], pictures.store, advance)
    return issues, pairs


def predict_by_features(features: Tensor, pictures: AuditedPictures) -> Tensor:
    """Return probabilities of the classes of each photo by a head fitted on other photos, (N, C).

    Copies are always in one fold. Photos of a class that no other fold has cannot be judged: all
    their probabilities are equal.

    Args:
        features: (N, D) of the photos.
        pictures: the photos, of at least two classes.
    """
    labels, classes = pictures.labels, len(pictures.classes)
    copies = torch.tensor(connected(len(labels), equal_places(pictures.digests)))
    folds = stratified_folds(labels, FOLDS, generator(0, "folds"), copies)
    logits = held_out_logits(features[None], labels, classes, folds, STRENGTH)
    in_fold = F.one_hot(labels, classes).T @ F.one_hot(folds, FOLDS)  # (C, FOLDS) counts
    logits[(in_fold > 0).sum(1)[labels] < 2] = 0
    return logits.softmax(1)


def photo_features(
    pictures: AuditedPictures, advance: Callable[[int], None] = lambda _: None
) -> Tensor:
    """Return the pretrained features (N, D) of photos, in the size and fit of `probe`.

    Args:
        pictures: files.
        advance: receives the number of photos whose features were just computed.

    Raises:
        UserError: a file can no longer be read, or the weights are damaged.
    """
    keep_memory()
    network, info = feature_network()
    model = placed(network, torch.device("cpu"))
    return cached_features(model, load_parts(pictures.paths, info.image_size), info, advance)
