"""Metrics as pure functions of (logits, labels), and what to call them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.metrics.calibration import expected_calibration_error
from hundredfold.metrics.confusion import class_scores, confusion_matrix
from hundredfold.support.errors import UserError

METRICS = {
    "fine_top1": "top-1 fine",
    "fine_top5": "top-5 fine",
    "coarse_top1": "top-1 coarse",
    "coarse_top5": "top-5 coarse",
    "macro_recall": "mean recall of the classes",
    "macro_f1": "mean F1 of the classes",
    "loss": "loss (nats)",
    "ece": "calibration error",
}
"""What `measure` returns, in words, in the order in which it is shown."""


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


def measure(
    logits: Tensor,
    labels: Tensor,
    learned: Literal["fine", "coarse"],
    parents: Sequence[int] = (),
) -> dict[str, float]:
    """Return all metrics of predictions.

    Args:
        logits: (N, C), N at least 1.
        labels: (N,) int64.
        learned: which labels these are, as in `ModelInfo.labels`.
        parents: (C,) index of each class's superclass; empty where there is no hierarchy.

    Returns:
        loss (mean cross-entropy in nats); of fine labels fine_top1, fine_top5 (only of more than
        five classes) and coarse_top1 (only with a hierarchy; by summed probabilities); of coarse
        labels coarse_top1 and coarse_top5; macro_recall and macro_f1 (means over the classes that
        have pictures here); ece. Shares are 0..1.
    """
    metrics = {
        "loss": F.cross_entropy(logits.double(), labels).item(),
        f"{learned}_top1": top_k(logits, labels, 1),
    }
    if logits.shape[1] > 5:
        metrics[f"{learned}_top5"] = top_k(logits, labels, 5)
    if parents and learned == "fine":
        coarse_labels = torch.as_tensor(parents)[labels]
        metrics["coarse_top1"] = top_k(coarse_probabilities(logits, parents), coarse_labels, 1)
    metrics |= macro(logits, labels)
    metrics["ece"] = expected_calibration_error(logits, labels)
    return metrics


def learned_top1(metrics: Mapping[str, float]) -> str:
    """Return the name of the accuracy on the labels that the measured model learned."""
    return "fine_top1" if "fine_top1" in metrics else "coarse_top1"


def shown(name: str, value: float) -> str:
    """Return a metric's value as text: shares in per cent, the loss as it is."""
    return f"{value:.4f}" if name == "loss" else f"{value:.2%}"


def metric_rows(*views: Mapping[str, float]) -> list[list[str]]:
    """Return rows of a metric's name and its value in each view, as texts.

    Means over the classes are left out where they repeat the accuracy: all classes are of one size.

    Args:
        views: as of `measure`, of the same pictures.
    """
    first = views[0]
    balanced = abs(first.get("macro_recall", 0.0) - first[learned_top1(first)]) < 1e-9
    return [
        [words, *(shown(name, view[name]) for view in views)]
        for name, words in METRICS.items()
        if name in first and not (balanced and name.startswith("macro"))
    ]


def refuse_earlier(metrics: Any) -> None:
    """Refuse metrics of a version whose accuracies did not say of which labels they were.

    Raises:
        UserError: they are of such a version.
    """
    if isinstance(metrics, dict) and "top1" in metrics:
        raise UserError(
            "its accuracies do not say whether they are of fine or coarse labels, for it was "
            "written by an earlier version of hundredfold: train again, or use that version."
        )
