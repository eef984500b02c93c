"""What pictures say before a model is trained: how accurate it may be, and what is missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hundredfold.audit.near_photos import find_near_photos
from hundredfold.augment import generator
from hundredfold.data.related import connected
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.models.levels import LAST_FEATURES
from hundredfold.support.text import plural
from hundredfold.training.head import held_out_logits

FOLDS = 10
"""Most folds of the cross-validation. Up to ten pictures, it leaves out one at a time."""
FEW = 10
"""Number of pictures below which a class needs more."""
MANY_NEAR, MANY_WRONG = 0.5, 0.2
"""Shares of a class's pictures from which near duplicates, and pictures that look like another
class, are mentioned."""


@dataclass(frozen=True)
class Check:
    """What pictures say about a model before it is trained."""

    accuracy: float | None
    """Share of pictures (0..1) that a head which has not seen them gets right; near duplicates
    count as one picture. None if no class can be judged, or only one."""
    interval: tuple[float, float] | None
    """Its 95 % interval."""
    count: int
    """Number of pictures that were judged, with near duplicates counted as one."""
    notes: tuple[tuple[str, ...], ...]
    """Sentences about each class."""


def check_pictures(
    features: Tensor, thumbnails: Tensor, labels: Tensor, classes: Sequence[str]
) -> Check:
    """Return what pictures say about a model before it is trained.

    Each picture is classified by a head that has seen neither the picture nor its near duplicates.
    A class whose pictures are all near duplicates of each other cannot be judged.

    Args:
        features: (N, D) pretrained features of the pictures.
        thumbnails: (N, 3, S, S) uint8, the same pictures, S at least 32.
        labels: (N,) int64.
        classes: names of the classes.
    """
    count, names = len(labels), labels.tolist()
    near = find_near_photos(features[:, :LAST_FEATURES], thumbnails) if count > 1 else []
    pairs = [(pair.first, pair.second) for pair in near]
    inside = [(i, j) for i, j in pairs if names[i] == names[j]]
    groups = torch.tensor(connected(count, inside), dtype=torch.int64)
    judged = [c for c in range(len(classes)) if len(groups[labels == c].unique()) > 1]
    kept = torch.isin(labels, torch.tensor(judged, dtype=torch.int64))
    right, found = torch.zeros(0), labels.clone()
    if len(judged) > 1:
        found[kept] = _predict(features[kept], labels[kept], groups[kept], len(classes))
        hits = (found == labels).float()[kept]
        right = torch.stack([hits[groups[kept] == group].mean() for group in groups[kept].unique()])
    share = right.mean().item() if len(right) else None
    notes = []
    for own in range(len(classes)):
        sentences = _about_size(classes[own], names.count(own), own in judged)
        sentences += _about_copies(own, names, pairs, classes)
        sentences += _about_mistakes(own, labels, found, classes)
        notes.append(tuple(sentences))
    interval = None if share is None else wilson_interval(share, len(right))
    return Check(share, interval, len(right), tuple(notes))


def _predict(features: Tensor, labels: Tensor, groups: Tensor, classes: int) -> Tensor:
    """Return the class (N,) of each picture, by a head that has not seen its group."""
    folds = stratified_folds(labels, FOLDS, generator(0, "teach"), groups)
    return held_out_logits(features[None], labels, classes, folds).argmax(1)


def _about_size(name: str, count: int, is_judged: bool) -> list[str]:
    if not count:
        return [f"No pictures yet. Add at least {FEW}."]
    if count < FEW:
        return [f"Only {plural(count, 'picture')}. Add at least {FEW - count} more."]
    if not is_judged:
        return [
            f"All pictures of {name} are almost the same, so it is impossible to estimate how well "
            "this class is recognised. Add different pictures."
        ]
    return []


def _about_copies(
    own: int, names: Sequence[int], pairs: Sequence[tuple[int, int]], classes: Sequence[str]
) -> list[str]:
    """Return sentences about the near duplicates of a class's pictures."""
    twins = {i: names[j] for pair in pairs for i, j in (pair, pair[::-1]) if names[i] == own}
    within, total = sum(other == own for other in twins.values()), names.count(own)
    sentences = []
    if within >= max(2, MANY_NEAR * total):
        sentences.append(
            f"{within} of {plural(total, 'picture')} have a near duplicate. Vary the background, "
            "the light and the distance."
        )
    for other, number in Counter(twin for twin in twins.values() if twin != own).items():
        have = "has a near duplicate" if number == 1 else "have near duplicates"
        sentences.append(f"{plural(number, 'picture')} {have} in {classes[other]}.")
    return sentences


def _about_mistakes(own: int, labels: Tensor, found: Tensor, classes: Sequence[str]) -> list[str]:
    """Return a sentence if many pictures of a class look like another class."""
    guesses = found[labels == own]
    wrong = Counter(guess for guess in guesses.tolist() if guess != own)
    if not wrong:
        return []
    other, number = wrong.most_common(1)[0]
    if number < max(2, MANY_WRONG * len(guesses)):
        return []
    return [f"{number} of {plural(len(guesses), 'picture')} look like {classes[other]}."]
