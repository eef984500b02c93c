"""Metrics against scikit-learn, torchmetrics and loops."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from hundredfold.metrics.calibration import expected_calibration_error
from hundredfold.metrics.scores import METRICS, coarse_probabilities, measure, metric_rows, top_k

PARENTS = torch.arange(20) % 6


@pytest.fixture
def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (500, 20) that are right about half the time, and labels (500,)."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 20, (500,), generator=rng)
    logits = torch.randn(500, 20, generator=rng) + 2 * F.one_hot(labels, 20)
    return logits, labels


def test_loss_and_accuracies_equal_scikit_learn(
    predictions: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = predictions
    metrics = measure(logits, labels, "fine", PARENTS.tolist())
    probabilities = logits.double().softmax(1).numpy()
    assert metrics["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-6)
    assert metrics["fine_top1"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    want = top_k_accuracy_score(labels, probabilities, k=5, labels=range(20))
    assert metrics["fine_top5"] == pytest.approx(want)


def test_coarse_accuracy_equals_a_loop(predictions: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = predictions
    right = 0
    for row, label in zip(logits.softmax(1).tolist(), labels.tolist(), strict=True):
        sums = [0.0] * 6
        for probability, parent in zip(row, PARENTS.tolist(), strict=True):
            sums[parent] += probability
        right += int(np.argmax(sums)) == int(PARENTS[label])
    assert measure(logits, labels, "fine", PARENTS.tolist())["coarse_top1"] == right / 500
    torch.testing.assert_close(
        coarse_probabilities(logits, PARENTS.tolist()).sum(1), torch.ones(500)
    )


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_error_equals_torchmetrics(
    predictions: tuple[torch.Tensor, torch.Tensor], bins: int
) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = predictions
    want = multiclass_calibration_error(
        logits.double().softmax(1), labels, num_classes=20, n_bins=bins, norm="l1"
    )
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(want.item(), abs=1e-6)


def test_confident_and_correct_model_is_calibrated() -> None:
    labels = torch.arange(4)
    metrics = measure(1000 * F.one_hot(labels).float(), labels, "fine")
    macro = {"macro_recall": 1, "macro_f1": 1}
    assert (
        metrics == {"loss": 0, "fine_top1": 1, "ece": 0} | macro
    )  # no top-5 accuracy of four classes


def test_means_over_classes_equal_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 50 + [1] * 20 + [3] * 5 + [5])  # classes 2 and 4 have no pictures
    logits = torch.randn(76, 6, generator=rng) + 2 * F.one_hot(labels, 6)
    metrics, predicted = measure(logits, labels, "fine"), logits.argmax(1)
    f1 = f1_score(labels, predicted, labels=[0, 1, 3, 5], average="macro")
    assert metrics["macro_f1"] == pytest.approx(f1)
    recalls = [(predicted[labels == c] == c).float().mean().item() for c in (0, 1, 3, 5)]
    assert metrics["macro_recall"] == pytest.approx(sum(recalls) / 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about predicted classes without labels
        want = balanced_accuracy_score(labels, predicted)
    assert metrics["macro_recall"] == pytest.approx(want)


def test_top_k_counts_labels_among_the_k_highest() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]])
    labels = torch.tensor([0, 1, 2])
    assert [top_k(logits, labels, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_metrics_on_coarse_labels_have_only_coarse_names(
    predictions: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = predictions
    fine, coarse = (measure(logits, labels, level, range(20)) for level in ("fine", "coarse"))
    assert coarse["coarse_top1"] == fine["fine_top1"]
    assert coarse["coarse_top5"] == fine["fine_top5"]
    assert not [name for name in coarse if name.startswith("fine")]
    assert "coarse_top5" not in fine
    assert set(METRICS) == fine.keys() | coarse.keys()


def test_metric_rows_name_fine_or_coarse_labels() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5])
    logits = F.one_hot(torch.tensor([0, 0, 1, 1, 2, 3, 4, 4]), 6).float()
    views = [measure(scale * logits, labels, "coarse", range(6)) for scale in (1, 2)]
    rows = metric_rows(*views)
    assert rows[:3] == [
        ["top-1 coarse", "75.00%", "75.00%"],  # 6 of 8
        ["top-5 coarse", f"{views[0]['coarse_top5']:.2%}", f"{views[1]['coarse_top5']:.2%}"],
        ["mean recall of the classes", "77.78%", "77.78%"],  # (2/3 + 4 + 0) / 6
    ]
    assert rows[4] == ["loss (nats)", *(f"{view['loss']:.4f}" for view in views)]
    balanced = metric_rows(measure(logits[2:], labels[2:], "fine"))
    assert [row[0] for row in balanced] == [
        "top-1 fine", "top-5 fine", "loss (nats)", "calibration error",
    ]  # fmt: skip
