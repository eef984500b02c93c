"""Metrics as pure functions of (logits, labels)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.analysis import class_scores, confusion_matrix
from hundredfold.calibration import expected_calibration_error


def coarse_probabilities(logits: Tensor, parents: Sequence[int]) -> Tensor:
    """Sum the probabilities of each superclass's classes.

    Args:
        logits: (N, C).
        parents: (C,) index of each class's superclass.

    Returns:
        (N, max(parents) + 1) probabilities.
    """
    probabilities = logits.softmax(1)
    index = torch.as_tensor(parents)
    out = torch.zeros(len(logits), max(parents) + 1, dtype=probabilities.dtype)
    return out.index_add_(1, index, probabilities)


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Return the share of pictures whose label is among the k highest logits: (N, C), (N,)."""
    hits = logits.topk(k, dim=1).indices == labels[:, None]
    return hits.any(1).double().mean().item()


def macro(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return recall and F1 as means over the classes that have pictures, however few each has.

    Args:
        logits: (N, C).
        labels: (N,) int64.
    """
    classes = logits.shape[1]
    scores = class_scores(confusion_matrix(labels, logits.argmax(1), classes))
    present = [score for score in scores if score.support]
    return {
        "macro_recall": sum(score.recall or 0.0 for score in present) / len(present),
        "macro_f1": sum(score.f1 or 0.0 for score in present) / len(present),
    }


def measure(logits: Tensor, labels: Tensor, parents: Sequence[int] = ()) -> dict[str, float]:
    """Return all metrics of predictions.

    Args:
        logits: (N, C), N at least 1.
        labels: (N,) int64.
        parents: (C,) index of each class's superclass; empty where there is no hierarchy.

    Returns:
        loss (mean cross-entropy in nats), top1, top5 (only of more than five classes), coarse_top1
        (only with a hierarchy; by summed probabilities), macro_recall and macro_f1 (means over the
        classes that have pictures here), ece. Shares are 0..1.
    """
    metrics = {
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "top1": top_k(logits, labels, 1),
    }
    if logits.shape[1] > 5:
        metrics["top5"] = top_k(logits, labels, 5)
    if parents:
        coarse_labels = torch.as_tensor(parents)[labels]
        metrics["coarse_top1"] = top_k(coarse_probabilities(logits, parents), coarse_labels, 1)
    metrics |= macro(logits, labels)
    metrics["ece"] = expected_calibration_error(logits, labels)
    return metrics
