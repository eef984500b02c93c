"""Metrics as pure functions of logits and labels, their names in words, and their formats.

Every name and every number format of a metric that people see comes from this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hundredfold.metrics.calibration import expected_calibration_error
from hundredfold.metrics.confusion import scores_from_counts
from hundredfold.metrics.intervals import CONFIDENCE, is_accuracy, wilson_interval
from hundredfold.support.errors import UserError
from hundredfold.support.text import plural

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
"""Name in words of each metric that `measure` returns, in the order in which they are shown."""
NUMBER_FORMATS = {"loss": ".4f", "seconds": ",.1f"}
"""Number formats other than per cent."""
VIEWS = {"test": "single view", "test_flip": "flip TTA"}
"""Name in words of each group of test metrics. TTA is test-time augmentation."""
INTERVAL = f"{CONFIDENCE:.0%} interval".replace("%", " %")
"""Name in words of the interval of an accuracy."""
INTERVAL_MEANING = (
    f"The {INTERVAL} estimates this model's accuracy on all pictures of the same kind. Of 20 such "
    "intervals from different test pictures, about 19 contain that accuracy."
)
FEW_TEST_PICTURES = 200
"""Below this number of test pictures, people are told why the intervals are wide. The interval of
an accuracy of 90 % then extends over more than 8 percentage points."""


def coarse_probabilities(logits: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the probability of each superclass: the sum over its classes.

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
    """Return the share of pictures whose label has one of the k highest logits: (N, C), (N,)."""
    hits = logits.topk(k, dim=1).indices == labels[:, None]
    return hits.any(1).double().mean().item()


def macro(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return recall and F1 as unweighted means over the classes that have pictures.

    Args:
        logits: (N, C).
        labels: (N,) int64.
    """
    predicted, classes = logits.argmax(1), logits.shape[1]
    scores = scores_from_counts(
        *(
            found.bincount(minlength=classes).tolist()
            for found in (labels[labels == predicted], labels, predicted)
        )
    )
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
        parents: (C,) index of each class's superclass; empty without a hierarchy.

    Returns:
        `loss`, the mean cross-entropy in nats. For fine labels `fine_top1`, `fine_top5`, and with a
        hierarchy `coarse_top1` by summed probabilities; for coarse labels `coarse_top1` and
        `coarse_top5`. Top-5 accuracies need more than five classes. `macro_recall` and `macro_f1`,
        means over the classes that have pictures here. `ece`, the expected calibration error. All
        but the loss are 0..1.

    Examples:
        >>> metrics = measure(torch.eye(4), torch.tensor([0, 1, 2, 0]), "fine")
        >>> metrics["fine_top1"]
        0.75
    """
    metrics = {
        "loss": F.cross_entropy(logits.double(), labels).item(),
        top1_key(learned): top_k(logits, labels, 1),
    }
    if logits.shape[1] > 5:
        metrics[f"{learned}_top5"] = top_k(logits, labels, 5)
    if parents and learned == "fine":
        coarse_labels = torch.as_tensor(parents)[labels]
        metrics["coarse_top1"] = top_k(coarse_probabilities(logits, parents), coarse_labels, 1)
    metrics |= macro(logits, labels)
    metrics["ece"] = expected_calibration_error(logits, labels)
    return metrics


def top1_key(labels: str) -> str:
    """Return the key of the top-1 accuracy on `fine` or `coarse` labels."""
    return f"{labels}_top1"


def learned_top1(metrics: Mapping[str, float]) -> str:
    """Return the key of the accuracy on the labels that the measured model learned."""
    return top1_key("fine" if top1_key("fine") in metrics else "coarse")


def metric_name(key: str) -> str:
    """Return a metric's name in words; the prefix `flip_` stands for flip TTA."""
    plain = key.removeprefix("flip_")
    return METRICS.get(plain, plain) + (f", {VIEWS['test_flip']}" if plain != key else "")


def format_metric(key: str, value: float) -> str:
    """Return a metric's value as text: shares in per cent with two decimals."""
    return f"{value:{NUMBER_FORMATS.get(key, '.2%')}}"


def format_probability(probability: float) -> str:
    """Return a probability, or a share in a figure, in per cent with one decimal."""
    return f"{probability:.1%}"


def format_points(share: float, decimals: int = 2, sign: str = "") -> str:
    """Return a share, or a difference of shares, in percentage points; `sign` "+" shows a plus."""
    return f"{100 * share:{sign}.{decimals}f}"


def format_interval(share: float, count: int) -> str:
    """Return the interval of a share as text, in per cent without the sign.

    Args:
        share: the share of hits, such as an accuracy (0..1).
        count: number of pictures that it is a share of.

    Raises:
        UserError: there is no such share; numbers read from a file may be damaged.

    Examples:
        >>> format_interval(0.9, 40)
        '76.9 to 96.0'
    """
    try:
        low, high = wilson_interval(share, count)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The metrics are damaged: there is no accuracy of {share!r} on {count!r} pictures."
        ) from error
    return f"{format_points(low, 1)} to {format_points(high, 1)}"


def describe_test(count: int, weights: str) -> str:
    """Return sentences that say what the test results mean.

    Args:
        count: number of test pictures.
        weights: pretrained weights that training began with, as in `Config.weights`.
    """
    sentences = INTERVAL_MEANING
    if count < FEW_TEST_PICTURES:
        there_are = "there is" if count == 1 else "there are"
        sentences += (
            f" The intervals are wide because {there_are} only {plural(count, 'test picture')}."
        )
    if weights:
        sentences += (
            " The network was pretrained. If these test pictures were among those of its "
            "pretraining, the accuracy is too high."
        )
    return sentences


def describe_cross_validation(metrics: Mapping[str, Any]) -> str:
    """Return sentences about the cross-validation in a run's metrics; empty if there is none.

    Raises:
        UserError: there is no such cross-validation; numbers read from a file may be damaged.
    """
    found = metrics.get("cross_validation")
    if not found:
        return ""
    try:
        accuracy, count = found["accuracy"], found["pictures"]
        return (
            f"The test set has only {plural(metrics['test_pictures'], 'picture')}. Therefore, a "
            "head on the pretrained features, without fine-tuning, was also cross-validated on all "
            f"{count:,} pictures ({found['folds']} folds, {found['repeats']} times). It classified "
            f"{format_metric('', accuracy)} of them correctly "
            f"({INTERVAL} {format_interval(accuracy, count)} %)."
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The metrics are damaged: there is no cross-validation {found!r}."
        ) from error


def metric_rows(*views: Mapping[str, float], count: int = 0) -> list[list[str]]:
    """Return a row of texts for each metric: its name, and its value in each view.

    Means over the classes are left out if they equal the accuracy, as in classes of equal size.

    Args:
        views: metrics that `measure` returned for the same pictures.
        count: number of these pictures. If it is given, a cell with the interval follows each
            value; the cell is empty if the metric is not an accuracy.
    """
    first = views[0]
    balanced = abs(first.get("macro_recall", 0.0) - first[learned_top1(first)]) < 1e-9

    def cells(key: str, value: float) -> list[str]:
        interval = format_interval(value, count) if count and is_accuracy(key) else ""
        return [format_metric(key, value), *([interval] if count else [])]

    return [
        [name, *(text for view in views for text in cells(key, view[key]))]
        for key, name in METRICS.items()
        if key in first and not (balanced and key.startswith("macro"))
    ]


def refuse_earlier(metrics: Any) -> None:
    """Refuse metrics of an earlier version, whose accuracies do not name their labels.

    Raises:
        UserError: the metrics are from such a version.
    """
    if isinstance(metrics, dict) and "top1" in metrics:
        raise UserError(
            "its accuracies do not say whether they are for fine or coarse labels, because it was "
            "written by an earlier version of hundredfold: train again, or use that version."
        )
