"""Find pictures that are the same, or nearly: shots of one scene, crops, mirror images.

In three steps. Features of several networks' early groups, which small shifts and changes of colour
hardly move, give each picture its nearest neighbours. Of these pairs the pixels are compared: how
well the middle of one picture matches some place in the other (normalised cross-correlation over
shifts and three scales), as they are and without what is smooth. And a pair counts the less the
nearer the other neighbours of its pictures are: a white background alone makes many alike.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.augment import prepare
from hundredfold.models.info import ModelInfo
from hundredfold.models.whitenet import WhiteNet

POOLS = (4, 2)
"""Places a side that the maps of the first groups are averaged to."""
DIMENSIONS = 256
"""Principal components of the features that neighbours are found by."""
NEIGHBOURS = 10
"""Of each picture that are looked at more closely."""
LEAST_COSINE, LEAST_MATCH = 0.55, 1.3
"""Cosine of the features, and that plus the correlation of the pixels, below which a pair is not
looked at any further."""
COSINE, CROWDING, SMOOTH, ROUGH = 4.0, 1.5, 0.5, 1.0
"""What counts how much in a score: the cosine; less the mean one of each picture's other
neighbours; the correlation of the pixels as they are, and without what is smooth. By logistic
regression on known pairs of CIFAR-100, rounded (benchmarks/audit.py, docs/audit.md)."""
THRESHOLD = 1.86
"""Score from which on two pictures are near duplicates."""
SIDE, TEMPLATE = 20, 13
"""Of the pictures that are matched, and of the middle that is looked for, in pixels."""
SCALES = (1.0, 0.87, 1.15)
BLUR = 5
"""Side in pixels, of 32, of the window whose mean is what is smooth."""
BLOCK = 1000

Pairs = tuple[Tensor, Tensor, Tensor]
"""(P,) first and second picture, int64, first < second; and whether one is mirrored, bool."""


class Pair(NamedTuple):
    """Two pictures that are nearly the same."""

    first: int
    second: int
    """Above `first`."""
    score: float
    """How alike they are, THRESHOLD to 3.85, as COSINE and the others weigh it."""


def exact_groups(digests: Sequence[str]) -> list[list[int]]:
    """Return the places of equal digests, of those that are there twice; an empty one is none."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest:
            places[digest].append(i)
    return [group for group in places.values() if len(group) > 1]


@torch.inference_mode()
def descriptors(
    models: Sequence[WhiteNet], parts: Iterable[Tensor], info: ModelInfo
) -> tuple[Tensor, Tensor]:
    """Return what pictures are compared by, and the same of their mirror images.

    Args:
        models: one or more, trained on such pictures, or at least whitened.
        parts: each (B, 3, S, S) uint8.
        info: how the models' pictures are prepared.

    Returns:
        two tensors (N, D) float32 of unit length.
    """
    mean, std = torch.tensor(info.mean), torch.tensor(info.std)
    found: list[list[Tensor]] = [[], []]
    for part in parts:
        x = prepare(part, mean, std)
        for rows, view in zip(found, (x, x.flip(3)), strict=True):
            features = [maps for model in models for maps in _features(model.eval(), view)]
            rows.append(torch.cat(features, 1))
    widths = [maps.shape[1] for maps in features]
    plain = torch.cat(found.pop(0))  # large: none is kept twice
    mirrored = torch.cat(found.pop())
    _compare_(plain, mirrored, widths)
    return plain, mirrored


def _features(model: WhiteNet, x: Tensor) -> list[Tensor]:
    """Return the pooled maps of the first groups, each (B, F)."""
    maps = zip(model.stages(x), POOLS, strict=False)
    return [F.adaptive_avg_pool2d(stage, pool).flatten(1) for stage, pool in maps]


def _compare_(plain: Tensor, mirrored: Tensor, widths: Sequence[int]) -> None:
    """Standardise the columns of each group's features, and bring them to one length, in place."""
    for one, other in zip(plain.split(widths, 1), mirrored.split(widths, 1), strict=True):
        mean, std = one.mean(0), one.std(0, correction=0).clamp_min(1e-5)
        for features in (one, other):
            features.sub_(mean).div_(std)
            length = features.norm(dim=1, keepdim=True).clamp_min(1e-12)
            features.div_(length * len(widths) ** 0.5)


def neighbours(
    plain: Tensor, mirrored: Tensor, advance: Callable[[int], None] = lambda _: None
) -> Pairs:
    """Return the pairs of which one picture is among the nearest neighbours of the other.

    Args:
        plain: (N, D) as of `descriptors`; compared by their principal components.
        mirrored: (N, D) of the mirror images.
        advance: takes how many more pictures have been compared.
    """
    _, axes = torch.linalg.eigh(plain.T @ plain)
    axes = axes[:, -DIMENSIONS:]
    plain, mirrored = F.normalize(plain @ axes), F.normalize(mirrored @ axes)
    count, found = min(NEIGHBOURS + 1, len(plain)), []
    for start in range(0, len(plain), BLOCK):
        same = plain[start : start + BLOCK] @ plain.T
        flipped = mirrored[start : start + BLOCK] @ plain.T
        _, which = torch.maximum(same, flipped).topk(count, dim=1)
        turned = (flipped > same).gather(1, which)
        own = torch.arange(start, start + len(same))[:, None].expand_as(which)
        found.append(torch.stack([own, which, turned.long()]).flatten(1))
        advance(len(same))
    one, other, turned = torch.cat(found, 1)
    keys = torch.minimum(one, other) * len(plain) + torch.maximum(one, other)
    keys, turned = keys[one != other], turned[one != other]
    order = keys.argsort(stable=True)
    first = torch.ones(len(keys), dtype=torch.bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    keys, turned = keys[order][first], turned[order][first]
    return keys // len(plain), keys % len(plain), turned.bool()


def crowding(pairs: Pairs, cosine: Tensor, count: int) -> Tensor:
    """Return the mean cosine of each picture with its neighbours but the nearest, (count,).

    Args:
        pairs: all that were found.
        cosine: (P,) of each; those of pairs that were not found are taken as LEAST_COSINE.
        count: number of pictures.
    """
    picture, value = torch.cat(pairs[:2]), torch.cat([cosine, cosine])
    order = value.argsort(descending=True, stable=True)
    order = order[picture[order].argsort(stable=True)]  # by picture, then the nearest first
    picture, value = picture[order], value[order]
    rank = torch.arange(len(picture)) - torch.searchsorted(picture, torch.arange(count))[picture]
    others = (rank > 0) & (rank < NEIGHBOURS)
    more = (value[others] - LEAST_COSINE).clamp_min(0)
    total = torch.zeros(count).index_add_(0, picture[others], more)
    return LEAST_COSINE + total / (NEIGHBOURS - 1)


def match(first: Tensor, second: Tensor, *, smooth: bool = True) -> Tensor:
    """Return how well the middle of each first picture is found in the second, and the reverse.

    Args:
        first: (B, 3, S, S) uint8, S at least SIDE.
        second: (B, 3, S, S) uint8.
        smooth: as they are; else without their local means.

    Returns:
        (B,) the best normalised cross-correlation, -1..1.
    """
    a, b = (images.float() / 255 for images in (first, second))
    if not smooth:
        a, b = a - _blurred(a), b - _blurred(b)
    a, b = _resized(a, SIDE), _resized(b, SIDE)
    return torch.maximum(_found_in(a, b), _found_in(b, a))


def _blurred(images: Tensor) -> Tensor:
    border = BLUR // 2
    padded = F.pad(images, (border, border, border, border), mode="reflect")
    return F.avg_pool2d(padded, BLUR, stride=1)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _found_in(pictures: Tensor, fields: Tensor) -> Tensor:
    """Return the best correlation of the middle of each picture with a place in its field."""
    count, places = len(pictures), SIDE - TEMPLATE + 1
    window = torch.ones(1, 1, TEMPLATE, TEMPLATE)
    single = fields.reshape(count * 3, 1, SIDE, SIDE)
    total, squares = (
        F.conv2d(values, window).view(count, 3, places, places) for values in (single, single**2)
    )
    spread = (squares - total**2 / TEMPLATE**2).sum(1).clamp_min(1e-3).sqrt()
    best = torch.full((count,), -1.0)
    for scale in SCALES:
        side = round(SIDE * scale)
        corner = (side - TEMPLATE) // 2
        middle = slice(corner, corner + TEMPLATE)
        template = _resized(pictures, side)[:, :, middle, middle]
        template = template - template.mean((2, 3), keepdim=True)
        length = template.flatten(1).norm(dim=1).clamp_min(1e-3)
        overlap = F.conv2d(fields.reshape(1, count * 3, SIDE, SIDE), template, groups=count)[0]
        best = torch.maximum(best, (overlap / spread / length.view(-1, 1, 1)).amax((1, 2)))
    return best


@torch.inference_mode()
def near_pairs(
    store: Tensor,
    plain: Tensor,
    mirrored: Tensor,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Pair]:
    """Return the near duplicates among pictures, the surest first.

    Args:
        store: (N, 3, S, S) uint8.
        plain: (N, D) as of `descriptors`.
        mirrored: (N, D) of the mirror images.
        advance: takes how many more pictures have been compared.
    """

    def similar(i: Tensor, j: Tensor, m: Tensor) -> Tensor:
        return (torch.where(m[:, None], mirrored[i], plain[i]) * plain[j]).sum(1)

    pairs = neighbours(plain, mirrored, advance)
    cosine = _blockwise(pairs, similar)
    crowd = crowding(pairs, cosine, len(store))
    score = COSINE * cosine - CROWDING * (crowd[pairs[0]] + crowd[pairs[1]])
    pairs, cosine, score = _where(cosine >= LEAST_COSINE, pairs, cosine, score)

    def matched(i: Tensor, j: Tensor, m: Tensor, *, smooth: bool) -> Tensor:
        first = torch.where(m.view(-1, 1, 1, 1), store[i].flip(3), store[i])
        return match(first, store[j], smooth=smooth)

    pixels = _blockwise(pairs, partial(matched, smooth=True))
    score = score + SMOOTH * pixels
    pairs, score = _where(cosine + pixels >= LEAST_MATCH, pairs, score)
    score = score + ROUGH * _blockwise(pairs, partial(matched, smooth=False))
    (first, second, _), score = _where(score >= THRESHOLD, pairs, score)
    found = zip(first.tolist(), second.tolist(), score.tolist(), strict=True)
    return sorted((Pair(*each) for each in found), key=lambda pair: (-pair.score, pair))


def _where(mask: Tensor, pairs: Pairs, *values: Tensor) -> tuple[Any, ...]:
    """Return the pairs, and their values, where the mask is set."""
    first, second, turned = pairs
    return (first[mask], second[mask], turned[mask]), *(value[mask] for value in values)


def _blockwise(pairs: Pairs, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Return a function's values of all pairs, (P,), a block at a time."""
    blocks = zip(*(part.split(BLOCK) for part in pairs), strict=True)
    return torch.cat([function(*block) for block in blocks if len(block[0])] or [torch.empty(0)])
