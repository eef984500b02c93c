"""Find near duplicates among photos: a shot saved again, resized, slightly cropped, or mirrored.

Each picture is compared with those whose grey thumbnails are most alike. One picture of such a pair
is shifted, scaled and sheared until it fits the other as well as possible: the affine model of
Baker and Matthews, "Lucas-Kanade 20 Years On", 2004, section 2. The pair is linked if the
thumbnails then correlate almost fully without their local means. Outlines alone do not suffice:
trousers on the same floor, or objects on a white board, stay below the threshold (docs/LOG.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.data.encoded import EncodedPictures

THRESHOLD = 0.93
"""Lowest correlation of near duplicates."""
COARSE, FINE = 16, 32
"""Sides in pixels of the thumbnails by which candidates are found, and of those that are fitted."""
CANDIDATES, MIN_ALIKE = 3, 0.6
"""Most candidates of each picture, and the lowest correlation of a candidate's thumbnail."""
LOWEST = (0.1, 0.4, 0.7)
"""Lowest correlation before each step of the fit; that of other pairs ends."""
BORDER = 3
"""Width in pixels, of a fitted thumbnail, that is not compared: it may lie outside the other."""
LIMIT = 0.15
"""Largest change of each coefficient of the affine map; 1 is half the side of a picture."""
BLUR = 5
"""Side in pixels of the window of a local mean."""
BLOCK, PAIRS = 1000, 256
"""Number of pictures, and of pairs, that are compared at a time."""


@torch.inference_mode()
def near_duplicates(store: Tensor | EncodedPictures, rows: Tensor) -> list[tuple[int, int]]:
    """Return the pairs of near duplicates, also of mirrored ones.

    Each picture is compared with its CANDIDATES most similar ones.

    Args:
        store: (M, 3, S, S) uint8, S at least 32.
        rows: (N,) int64, rows of the store to compare.

    Returns:
        Pairs of places in `rows`, the first below the second, sorted.
    """
    if len(rows) < 2:
        return []
    blocks, coarse, fine = rows.split(BLOCK), [], torch.empty(0)
    if isinstance(store, EncodedPictures):  # decode each picture once
        fine = torch.empty(len(rows), 3, FINE, FINE)
        for block, places in zip(store.batches(blocks), fine.split(BLOCK), strict=True):
            coarse.append(thumbnails(block, COARSE).mean(1))
            places[:] = thumbnails(block, FINE)
    else:
        coarse = [thumbnails(store[block], COARSE).mean(1) for block in blocks]
    pairs, mirrored = _candidates(_without_local_means(torch.cat(coarse)))
    linked = [torch.empty(0, dtype=torch.bool)]
    for pair, turned in zip(pairs.split(PAIRS), mirrored.split(PAIRS), strict=True):
        first, second = (
            fine[places] if len(fine) else thumbnails(store[rows[places]], FINE)
            for places in pair.unbind(1)
        )
        first = torch.where(turned.view(-1, 1, 1, 1), first.flip(3), first)
        linked.append(fitted_correlation(first, second) >= THRESHOLD)
    return [(int(one), int(other)) for one, other in pairs[torch.cat(linked)]]


def _candidates(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs (P, 2) of pictures that are alike, and whether the first must be mirrored (P,).

    Args:
        grey: (N, COARSE, COARSE) thumbnails without their local means.
    """
    plain, mirrored = (F.normalize(images.flatten(1)) for images in (grey, grey.flip(2)))
    found = []
    for start in range(0, len(plain), BLOCK):
        same, turned = (part[start : start + BLOCK] @ plain.T for part in (plain, mirrored))
        own = torch.arange(start, start + len(same))
        alike = torch.maximum(same, turned)
        alike[own - start, own] = -1
        values, nearest = alike.topk(min(CANDIDATES, len(plain)), dim=1)
        is_mirrored = (turned > same).gather(1, nearest)
        mine = own[:, None].expand_as(nearest)
        ordered = torch.minimum(mine, nearest), torch.maximum(mine, nearest), is_mirrored
        found.append(torch.stack(ordered, 2)[values >= MIN_ALIKE])
    pairs = torch.cat(found).unique(dim=0)
    return pairs[:, :2], pairs[:, 2].bool()


def fitted_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return how well the second thumbnail of each pair fits the first, (B,) -1..1.

    It is the correlation without local means, after an affine fit, in grey and in colour, whichever
    is lower. Fits that are going badly end early, and have the correlation in grey.

    Args:
        first: (B, 3, FINE, FINE), as returned by `thumbnails`.
        second: (B, 3, FINE, FINE).
    """
    target, source = first.mean(1), second.mean(1)
    wanted = _without_local_means(target)
    best = _correlation(wanted, _without_local_means(source))
    maps = torch.eye(2, 3).repeat(len(first), 1, 1)
    target, source = _standardised(target), _standardised(source)
    for lowest in LOWEST:
        at = ((best >= lowest) & (best < THRESHOLD)).nonzero()[:, 0]
        trial = _improved(maps[at], target[at], source[at])
        fitted = _without_local_means(_warped(second[at].mean(1, keepdim=True), trial)[:, 0])
        correlation = _correlation(wanted[at], fitted)
        better = correlation > best[at]
        maps[at[better]], best[at[better]] = trial[better], correlation[better]
    good = best >= LOWEST[-1]
    fitted = _without_local_means(_warped(second[good], maps[good]))
    in_colour = _correlation(_without_local_means(first[good]), fitted)
    best[good] = torch.minimum(best[good], in_colour)
    return best


def _improved(maps: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Return affine maps, (B, 2, 3), after one step of least squares.

    Args:
        maps: (B, 2, 3), as for `affine_grid`.
        target: (B, FINE, FINE), the thumbnails to be fitted.
        source: (B, FINE, FINE), the thumbnails that are mapped.
    """
    places = (torch.arange(FINE) + 0.5) * 2 / FINE - 1  # of the pixels, as for `affine_grid`
    image = _warped(source[:, None], maps)[:, 0]
    error = _inside(target - image).flatten(1)
    down, across = torch.gradient(image, spacing=2 / FINE, dim=(1, 2))
    x, y = places, places[:, None]
    slopes = [slope * factor for slope in (across, down) for factor in (x, y, torch.tensor(1.0))]
    matrix = _inside(torch.stack(slopes, 1)).flatten(2)
    normal = matrix @ matrix.transpose(1, 2)
    scale = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    normal = normal + 0.01 * scale.view(-1, 1, 1) * torch.eye(6)
    change = torch.linalg.solve(normal, (matrix @ error[:, :, None])[:, :, 0])
    identity = torch.eye(2, 3)
    moved: Tensor = maps + change.view(-1, 2, 3) - identity
    return identity + moved.clamp(-LIMIT, LIMIT)


def _warped(images: Tensor, maps: Tensor) -> Tensor:
    if not len(images):  # `affine_grid` refuses them
        return images
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def thumbnails(images: Tensor, side: int = FINE) -> Tensor:
    """Return pictures, (N, 3, S, S) of any kind, reduced to (N, 3, side, side) float32."""
    return F.adaptive_avg_pool2d(images.float(), side)


def _standardised(images: Tensor) -> Tensor:
    """Return thumbnails (B, FINE, FINE) with smooth edges, of mean 0 and deviation 1."""
    smooth = _local_means(images, 3)
    centred = smooth - smooth.mean((1, 2), keepdim=True)
    return centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-3)


def _without_local_means(images: Tensor) -> Tensor:
    return images - _local_means(images, BLUR)


def _local_means(images: Tensor, window: int) -> Tensor:
    """Return the mean of the window around each pixel, (..., S, S), reflected at the borders."""
    side, border = images.shape[-1], window // 2
    rows = F.pad(torch.eye(side)[None, None], (0, 0, border, border), mode="reflect")[0, 0]
    means = rows.unfold(0, window, 1).mean(-1)
    return means @ images @ means.T


def _inside(images: Tensor) -> Tensor:
    return images[..., BORDER:-BORDER, BORDER:-BORDER]


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(_inside(first).flatten(1), _inside(second).flatten(1))
