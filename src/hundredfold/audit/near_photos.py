"""Find near duplicates among photos by pretrained features and by pixels.

The nearest neighbours by the features are compared by their pixels, mirrored or not. The score of a
pair is lower where the other neighbours of its pictures are near as well: trousers on one floor are
all alike, but no near duplicates. Pairs that are kept together when a split is cut are near
duplicates, whatever their score.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.audit.duplicates import NEIGHBOURS, NearDuplicate, crowding
from hundredfold.data.near import fitted_correlation, near_duplicates, thumbnails

MATCH = 0.5
"""Weight in a score of the correlation of the pixels; the cosine of the features has weight 1."""
MOST_CROWDED = 0.75
"""Mean cosine of the other neighbours above which a score falls no further: each of many shots of
one scene has many near neighbours."""
THRESHOLD = 0.7
"""Lowest score of near duplicates by features: the cosine of the features, plus MATCH times the
correlation of the pixels, less the mean cosine of the other neighbours of the more crowded picture,
at most MOST_CROWDED. Chosen by looking at pairs of three sets of photos (docs/audit.md)."""
BLOCK = 256
"""Number of photos, and of pairs, that are compared at a time."""


@torch.inference_mode()
def find_near_photos(
    features: Tensor, store: Tensor, advance: Callable[[int], None] = lambda _: None
) -> list[NearDuplicate]:
    """Return the near duplicates among photos, highest score first.

    Args:
        features: (N, D) of the photos.
        store: (N, 3, S, S) uint8, the photos, S at least 32.
        advance: receives the number of photos just compared.
    """
    count, features = len(store), F.normalize(features - features.mean(0))
    linked = near_duplicates(store, torch.arange(count))
    by_pixels = torch.tensor(linked, dtype=torch.int64).view(-1, 2) @ torch.tensor([count, 1])
    keys = torch.cat([_neighbours(features, advance), by_pixels]).unique()
    pairs = torch.stack([keys // count, keys % count], 1)
    cosine = _by_blocks(pairs, lambda i, j: (features[i] * features[j]).sum(1))
    crowd = crowding((pairs[:, 0], pairs[:, 1], torch.zeros(0)), cosine, count)
    score = cosine - crowd[pairs].amax(1).clamp_max(MOST_CROWDED)
    sure = torch.isin(keys, by_pixels)
    possible = sure | (score >= THRESHOLD - MATCH)
    pairs, score, sure = pairs[possible], score[possible], sure[possible]
    score = score + MATCH * _by_blocks(pairs, lambda i, j: _match(store[i], store[j]))
    near = sure | (score >= THRESHOLD)
    rows = zip(*pairs[near].T.tolist(), score[near].tolist(), strict=True)
    return sorted((NearDuplicate(*row) for row in rows), key=lambda pair: (-pair.score, pair))


def _neighbours(features: Tensor, advance: Callable[[int], None]) -> Tensor:
    """Return the pairs of photos of which one is among the NEIGHBOURS nearest to the other.

    Returns:
        (P,) int64: N times the first photo, plus the second.
    """
    blocks = []
    for own in torch.arange(len(features)).split(BLOCK):
        cosine = features[own] @ features.T
        cosine[torch.arange(len(own)), own] = -torch.inf
        nearest = cosine.topk(min(NEIGHBOURS, len(features) - 1)).indices
        mine = own[:, None].expand_as(nearest)
        keys = torch.minimum(mine, nearest) * len(features) + torch.maximum(mine, nearest)
        blocks.append(keys.flatten())
        advance(len(own))
    return torch.cat(blocks)


def _by_blocks(pairs: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return a function's values (P,) for the first and second photos of pairs (P, 2)."""
    values = [function(*block.T) for block in pairs.split(BLOCK) if len(block)]
    return torch.cat(values) if values else torch.empty(0)


def _match(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation (B,) of the pixels of each pair, the first mirrored if that is better.

    Features hardly differ between a photo and its mirror image, so they cannot tell.
    """
    one, other = thumbnails(first), thumbnails(second)
    return torch.maximum(fitted_correlation(one, other), fitted_correlation(one.flip(3), other))
