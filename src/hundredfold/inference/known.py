"""Tell pictures that show none of the classes of a model.

Two things are unlike what they are for known pictures: the largest logit is small, or a large part
of the features lies outside of the directions in which the features of the training pictures vary
most. The first finds other classes of the same kind, the second finds pictures of another kind.
Both are standardised and added (Wang et al., "ViM: Out-Of-Distribution with Virtual-logit
Matching", 2022, section 4; there, the part outside becomes one more logit).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from hundredfold.support.errors import UserError

FOREIGN = 0.05
"""Share of held-out pictures below which a picture counts as showing none of the classes."""
DIRECTIONS = 64
"""Most directions in which features are expected to vary."""
MOST_SCORES = 1000
"""Most scores of held-out pictures that are kept."""


@dataclass(frozen=True)
class Known:
    """How well a model knows what pictures show."""

    mean: Tensor
    """(D,) mean of the features of training pictures."""
    directions: Tensor
    """(D, K) orthonormal directions in which they vary most."""
    scale: Tensor
    """(2, 2) means and standard deviations (rows) of the largest logit and of the outside part
    (columns) of held-out pictures."""
    scores: Tensor
    """(S,) scores of held-out pictures, in rising order."""

    def __call__(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the share (N,) of held-out pictures that look no more familiar, 0..1.

        Of pictures like those that were held out, one in twenty has a share below 0.05.

        Args:
            logits: (N, C), not calibrated.
            features: (N, F) inputs of the last layer, of which the first D are used.
        """
        score = self._score(logits.amax(1), outside_part(features, self.mean, self.directions))
        share: Tensor = (score[:, None] >= self.scores).float().mean(1)
        return share

    def _score(self, largest: Tensor, outside: Tensor) -> Tensor:
        mean, std = self.scale
        score: Tensor = (largest - mean[0]) / std[0] - (outside - mean[1]) / std[1]
        return score


def make_known(features: Tensor, largest: Tensor, outside: Tensor) -> Known:
    """Return how well a model knows what pictures show.

    Args:
        features: (N, D) features of training pictures, N at least 2.
        largest: (H,) largest logit of each held-out picture, H at least 2.
        outside: (H,) part of its features outside of the directions of other pictures.
    """
    both = torch.stack([largest, outside], 1)
    scale = torch.stack([both.mean(0), both.std(0).clamp_min(1e-6)])
    known = Known(*principal_directions(features), scale, torch.empty(0))
    scores = known._score(largest, outside).sort().values
    if len(scores) > MOST_SCORES:
        scores = scores[torch.linspace(0, len(scores) - 1, MOST_SCORES).round().long()]
    return Known(known.mean, known.directions, scale, scores)


def principal_directions(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) of features (N, D), and the directions (D, K) of largest variance.

    K is DIRECTIONS, or half of N if that is less.
    """
    mean = features.mean(0)
    # The triangular factor has the same directions, and never more rows than columns.
    factor = torch.linalg.qr((features - mean).double(), mode="r").R
    rows = torch.linalg.svd(factor, full_matrices=False).Vh[: min(DIRECTIONS, len(features) // 2)]
    return mean, rows.T.float().contiguous()


def outside_part(features: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Return the part (N,) of the length of centred features outside of directions, 0..1."""
    centred = features[:, : len(mean)] - mean
    outside = centred - centred @ directions @ directions.T
    part: Tensor = outside.norm(dim=1) / centred.norm(dim=1).clamp_min(1e-6)
    return part


def known_tensors(known: Known) -> dict[str, Tensor]:
    """Return the tensors to store."""
    return asdict(known)


def known_from(tensors: Mapping[str, Tensor], name: str) -> Known:
    """Return what `known_tensors` was given.

    Args:
        tensors: stored tensors.
        name: name of their file in an error.

    Raises:
        UserError: the tensors do not belong together, or are not finite numbers.
    """
    if tensors.keys() != {"mean", "directions", "scale", "scores"}:
        raise UserError(f"{name} has other tensors than it should: {', '.join(sorted(tensors))}.")
    known = Known(**tensors)
    fits = (
        known.mean.ndim == known.scores.ndim == 1
        and known.directions.ndim == 2
        and len(known.directions) == len(known.mean)
        and known.scale.shape == (2, 2)
        and len(known.scores) > 0
    )
    if not fits or not all(
        t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values()
    ):
        raise UserError(f"{name} has tensors that do not belong together.")
    return known
