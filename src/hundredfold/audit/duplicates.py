"""Find copies and near duplicates: shots of one scene, crops, mirror images.

Near duplicates are found in three steps. First, features from the early groups of several networks
give each picture its nearest neighbours; small shifts and changes of colour hardly change these
features. Second, the pixels of these pairs are compared: how well the middle of one picture matches
some place in the other, by normalised cross-correlation over shifts and three scales, both for the
pictures as they are and without their local means. Third, the score of a pair is lower the closer
the other neighbours of its pictures are, because a white background alone makes many pictures
similar.
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
"""Side to which the feature maps of the first groups are average-pooled."""
DIMENSIONS = 256
"""Number of principal components of the features by which neighbours are found."""
NEIGHBOURS = 10
"""Number of neighbours of each picture whose pixels are compared."""
MIN_COSINE, MIN_MATCH = 0.55, 1.3
"""Lowest cosine of the features, and lowest sum of this cosine and the correlation of the pixels,
of a pair that is compared further."""
COSINE, CROWDING, SMOOTH, ROUGH = 4.0, 1.5, 0.5, 1.0
"""Weights of a pair's score: of the cosine; of the mean cosine of each picture's other neighbours,
which is subtracted; and of the correlation of the pixels, as they are and without their local
means. Fitted by logistic regression on known pairs of CIFAR-100 and rounded (benchmarks/audit.py,
docs/audit.md)."""
THRESHOLD = 1.86
"""Lowest score of near duplicates."""
SIDE, TEMPLATE = 20, 13
"""Side in pixels of the pictures that are matched, and of the middle that is searched for."""
SCALES = (1.0, 0.87, 1.15)
"""Relative sizes at which the middle is searched for."""
BLUR = 5
"""Side in pixels, for pictures of 32 pixels, of the window of a local mean."""
BLOCK = 1000
"""Number of pictures or pairs that are compared at a time."""

Pairs = tuple[Tensor, Tensor, Tensor]
"""Three tensors (P,): first and second picture, int64, first < second; whether one is mirrored,
bool."""


class NearDuplicate(NamedTuple):
    """Two pictures that are nearly the same."""

    first: int
    """Index of a picture."""
    second: int
    """Index of the other picture, larger than `first`."""
    score: float
    """Similarity, from THRESHOLD to 3.85, weighted by COSINE, CROWDING, SMOOTH and ROUGH. Photos
    have the score of `near_photos`."""


def find_copies(digests: Sequence[str]) -> list[list[int]]:
    """Return groups of the indices of equal digests; an empty digest is in no group."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest:
            places[digest].append(i)
    return [group for group in places.values() if len(group) > 1]


@torch.inference_mode()
def descriptors(
    models: Sequence[WhiteNet], parts: Iterable[Tensor], info: ModelInfo
) -> tuple[Tensor, Tensor]:
    """Return the features by which pictures are compared, of the pictures and their mirror images.

    Args:
        models: one or more networks, trained on such pictures or at least whitened.
        parts: batches of pictures, each (B, 3, S, S) uint8.
        info: how the pictures are prepared for the models.

    Returns:
        Two tensors (N, D) float32, rows of unit length.
    """
    mean, std = torch.tensor(info.mean), torch.tensor(info.std)
    both: list[list[Tensor]] = [[], []]
    for part in parts:
        x = prepare(part, mean, std)
        for rows, view in zip(both, (x, x.flip(3)), strict=True):
            features = [maps for model in models for maps in _features(model.eval(), view)]
            rows.append(torch.cat(features, 1))
    widths = [maps.shape[1] for maps in features]
    plain = torch.cat(both.pop(0))  # popped: they are too large to be in memory twice
    mirrored = torch.cat(both.pop())
    _standardise_(plain, mirrored, widths)
    return plain, mirrored


def _features(model: WhiteNet, x: Tensor) -> list[Tensor]:
    """Return the pooled feature maps of the first groups, each (B, F)."""
    maps = zip(model.stages(x), POOLS, strict=False)
    return [F.adaptive_avg_pool2d(stage, pool).flatten(1) for stage, pool in maps]


def _standardise_(plain: Tensor, mirrored: Tensor, widths: Sequence[int]) -> None:
    """Standardise the features of each group and scale them to equal length, in place."""
    for one, other in zip(plain.split(widths, 1), mirrored.split(widths, 1), strict=True):
        mean, std = one.mean(0), one.std(0, correction=0).clamp_min(1e-5)
        for features in (one, other):
            features.sub_(mean).div_(std)
            length = features.norm(dim=1, keepdim=True).clamp_min(1e-12)
            features.div_(length * len(widths) ** 0.5)


def find_neighbours(
    plain: Tensor, mirrored: Tensor, advance: Callable[[int], None] = lambda _: None
) -> Pairs:
    """Return the pairs in which one picture is among the nearest neighbours of the other.

    Args:
        plain: (N, D) as returned by `descriptors`; compared by their principal components.
        mirrored: (N, D) of the mirror images.
        advance: receives the number of pictures just compared.
    """
    _, axes = torch.linalg.eigh(plain.T @ plain)
    axes = axes[:, -DIMENSIONS:]
    plain, mirrored = F.normalize(plain @ axes), F.normalize(mirrored @ axes)
    count, blocks = min(NEIGHBOURS + 1, len(plain)), []
    for start in range(0, len(plain), BLOCK):
        same = plain[start : start + BLOCK] @ plain.T
        flipped = mirrored[start : start + BLOCK] @ plain.T
        _, nearest = torch.maximum(same, flipped).topk(count, dim=1)
        is_mirrored = (flipped > same).gather(1, nearest)
        own = torch.arange(start, start + len(same))[:, None].expand_as(nearest)
        blocks.append(torch.stack([own, nearest, is_mirrored.long()]).flatten(1))
        advance(len(same))
    one, other, is_mirrored = torch.cat(blocks, 1)
    keys = torch.minimum(one, other) * len(plain) + torch.maximum(one, other)
    keys, is_mirrored = keys[one != other], is_mirrored[one != other]
    order = keys.argsort(stable=True)
    first = torch.ones(len(keys), dtype=torch.bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    keys, is_mirrored = keys[order][first], is_mirrored[order][first]
    return keys // len(plain), keys % len(plain), is_mirrored.bool()


def crowding(pairs: Pairs, cosine: Tensor, count: int) -> Tensor:
    """Return each picture's mean cosine with its neighbours except the nearest, (count,).

    Args:
        pairs: as returned by `find_neighbours`.
        cosine: (P,) of each pair; missing neighbours count as MIN_COSINE.
        count: number of pictures.
    """
    picture, value = torch.cat(pairs[:2]), torch.cat([cosine, cosine])
    order = value.argsort(descending=True, stable=True)
    order = order[picture[order].argsort(stable=True)]  # by picture, nearest first
    picture, value = picture[order], value[order]
    rank = torch.arange(len(picture)) - torch.searchsorted(picture, torch.arange(count))[picture]
    others = (rank > 0) & (rank < NEIGHBOURS)
    more = (value[others] - MIN_COSINE).clamp_min(0)
    total = torch.zeros(count).index_add_(0, picture[others], more)
    return MIN_COSINE + total / (NEIGHBOURS - 1)


def match_pixels(first: Tensor, second: Tensor, *, smooth: bool = True) -> Tensor:
    """Return how well the middle of one picture of each pair is found in the other.

    Args:
        first: (B, 3, S, S) uint8, S at least SIDE.
        second: (B, 3, S, S) uint8.
        smooth: compare the pictures as they are; otherwise without their local means.

    Returns:
        (B,) best normalised cross-correlation in either direction, -1..1.
    """
    a, b = (images.float() / 255 for images in (first, second))
    if not smooth:
        a, b = a - _blurred(a), b - _blurred(b)
    a, b = _resized(a, SIDE), _resized(b, SIDE)
    return torch.maximum(_best_correlation(a, b), _best_correlation(b, a))


def _blurred(images: Tensor) -> Tensor:
    border = BLUR // 2
    padded = F.pad(images, (border, border, border, border), mode="reflect")
    return F.avg_pool2d(padded, BLUR, stride=1)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _best_correlation(pictures: Tensor, fields: Tensor) -> Tensor:
    """Return the best correlation of the middle of each picture with any place in its field."""
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
def find_near_duplicates(
    store: Tensor,
    plain: Tensor,
    mirrored: Tensor,
    advance: Callable[[int], None] = lambda _: None,
) -> list[NearDuplicate]:
    """Return the near duplicates among pictures, highest score first.

    Args:
        store: (N, 3, S, S) uint8.
        plain: (N, D) as returned by `descriptors`.
        mirrored: (N, D) of the mirror images.
        advance: receives the number of pictures just compared.
    """

    def similar(i: Tensor, j: Tensor, m: Tensor) -> Tensor:
        return (torch.where(m[:, None], mirrored[i], plain[i]) * plain[j]).sum(1)

    pairs = find_neighbours(plain, mirrored, advance)
    cosine = _blockwise(pairs, similar)
    crowd = crowding(pairs, cosine, len(store))
    score = COSINE * cosine - CROWDING * (crowd[pairs[0]] + crowd[pairs[1]])
    pairs, cosine, score = _select(cosine >= MIN_COSINE, pairs, cosine, score)

    def matched(i: Tensor, j: Tensor, m: Tensor, *, smooth: bool) -> Tensor:
        first = torch.where(m.view(-1, 1, 1, 1), store[i].flip(3), store[i])
        return match_pixels(first, store[j], smooth=smooth)

    pixels = _blockwise(pairs, partial(matched, smooth=True))
    score = score + SMOOTH * pixels
    pairs, score = _select(cosine + pixels >= MIN_MATCH, pairs, score)
    score = score + ROUGH * _blockwise(pairs, partial(matched, smooth=False))
    (first, second, _), score = _select(score >= THRESHOLD, pairs, score)
    rows = zip(first.tolist(), second.tolist(), score.tolist(), strict=True)
    return sorted((NearDuplicate(*row) for row in rows), key=lambda pair: (-pair.score, pair))


def _select(mask: Tensor, pairs: Pairs, *values: Tensor) -> tuple[Any, ...]:
    """Return the pairs and their values where the mask is true."""
    first, second, turned = pairs
    return (first[mask], second[mask], turned[mask]), *(value[mask] for value in values)


def _blockwise(pairs: Pairs, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Return a function's values for all pairs, (P,), computed in blocks."""
    blocks = zip(*(part.split(BLOCK) for part in pairs), strict=True)
    return torch.cat([function(*block) for block in blocks if len(block[0])] or [torch.empty(0)])
