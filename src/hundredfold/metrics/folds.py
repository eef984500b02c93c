"""Folds for cross-validation."""

from collections import Counter, defaultdict

import torch
from torch import Tensor


def stratified_folds(
    labels: Tensor, folds: int, rng: torch.Generator, groups: Tensor | None = None
) -> Tensor:
    """Return the fold of each picture; each class is spread over the folds as evenly as possible.

    Groups are assigned in random order, large ones first, each to the fold that has the fewest
    pictures of its classes.

    Args:
        labels: (N,) int64.
        folds: number of folds.
        rng: random generator.
        groups: (N,) int64; pictures of a group are in the same fold. None if there are no groups.

    Returns:
        (N,) int64, 0..folds-1.
    """
    keys = groups.tolist() if groups is not None else range(len(labels))
    members: dict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    all_groups = list(members.values())
    order = [all_groups[i] for i in torch.randperm(len(all_groups), generator=rng).tolist()]
    order.sort(key=len, reverse=True)  # stable
    names, result = labels.tolist(), torch.zeros(len(labels), dtype=torch.int64)
    counts, totals = [Counter[int]() for _ in range(folds)], [0] * folds
    for group in order:
        classes = {names[i] for i in group}
        fold = min(
            range(folds),
            key=lambda f: (sum(counts[f][name] for name in classes), totals[f], f),
        )
        result[group] = fold
        counts[fold].update(names[i] for i in group)
        totals[fold] += len(group)
    return result
