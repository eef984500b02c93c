"""The test predictions of a run, fine and coarse, with their scores."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hundredfold.data.dataset import describe_untested
from hundredfold.metrics.confusion import ClassScore, class_scores, confusion_matrix
from hundredfold.metrics.scores import coarse_probabilities
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError


@dataclass(frozen=True)
class ScoredPredictions:
    """Calibrated predictions for the test set, on fine or on coarse labels."""

    name: str
    """fine or coarse."""
    classes: tuple[str, ...]
    """(C,) names."""
    parents: tuple[int, ...]
    """(C,) index of each class's superclass; empty if there are no superclasses above."""
    probabilities: Tensor
    """(N, C) probability of each class."""
    labels: Tensor
    """(N,) int64, index of the true class."""

    @cached_property
    def confidence(self) -> Tensor:
        """(N,) probability of the predicted class."""
        return self.probabilities.max(1).values

    @cached_property
    def predicted(self) -> Tensor:
        """(N,) int64, index of the predicted class."""
        return self.probabilities.argmax(1)

    @cached_property
    def correct(self) -> Tensor:
        """(N,) bool, whether the prediction equals the label."""
        return self.predicted == self.labels

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C) int64 counts: a row for each label, a column for each prediction."""
        return confusion_matrix(self.labels, self.predicted, len(self.classes))

    @cached_property
    def scores(self) -> list[ClassScore]:
        """(C,) precision, recall and F1 of each class."""
        return class_scores(self.confusion)

    @property
    def untested(self) -> str:
        """A sentence about the classes without test pictures; empty if all classes have some."""
        return describe_untested(self.classes, self.confusion.sum(1).tolist())


def scored_predictions(run: Run) -> list[ScoredPredictions]:
    """Return a finished run's test predictions on the labels that it learned.

    If these are fine labels with superclasses above, the coarse predictions come second.

    Raises:
        UserError: the run is damaged.
    """
    info, test = run.info(), run.test_logits()
    logits, labels = test["logits"] / info.temperature, test["labels"]
    shape = (run.metrics().get("test_pictures"), len(info.classes))
    if logits.shape != shape or labels.shape != shape[:1] or not _usable(logits, labels):
        raise UserError(f"{run} is damaged: its test predictions do not match its other files.")
    parents = info.parents if info.superclasses != info.classes else ()
    learned = ScoredPredictions(info.labels, info.classes, parents, logits.softmax(1), labels)
    if not parents:
        return [learned]
    probabilities = coarse_probabilities(logits, parents)
    coarse_labels = torch.tensor(parents)[labels]
    coarse = ScoredPredictions("coarse", info.superclasses, (), probabilities, coarse_labels)
    return [learned, coarse]


def _usable(logits: Tensor, labels: Tensor) -> bool:
    """Return whether all logits are finite, and all labels are indices of classes."""
    right_types = logits.dtype == torch.float32 and labels.dtype == torch.int64
    in_range = (labels >= 0) & (labels < logits.shape[1])
    return bool(right_types and logits.isfinite().all() and in_range.all())
