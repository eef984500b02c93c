"""The test predictions of a run at each level of its labels."""

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
class Level:
    """Calibrated predictions over one set of classes."""

    name: str
    """fine or coarse."""
    classes: tuple[str, ...]
    parents: tuple[int, ...]
    """(C,) superclass of each class; empty where there is none above."""
    probabilities: Tensor
    """(N, C)."""
    labels: Tensor
    """(N,) int64."""

    @cached_property
    def confidence(self) -> Tensor:
        """(N,) probability of what was predicted."""
        return self.probabilities.max(1).values

    @cached_property
    def predicted(self) -> Tensor:
        """(N,) int64."""
        return self.probabilities.argmax(1)

    @cached_property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return self.predicted == self.labels

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C) counts, row the label, column the prediction."""
        return confusion_matrix(self.labels, self.predicted, len(self.classes))

    @cached_property
    def scores(self) -> list[ClassScore]:
        """(C,) how well each class is recognised."""
        return class_scores(self.confusion)

    @property
    def untested(self) -> str:
        """A sentence about the classes without test pictures; empty where there are none."""
        return describe_untested(self.classes, self.confusion.sum(1).tolist())


def levels(run: Run) -> list[Level]:
    """Return the levels of a finished run's labels, what it learned first, then what is above.

    Raises:
        UserError: the run is damaged.
    """
    info, test = run.info(), run.test_logits()
    logits, labels = test["logits"] / info.temperature, test["labels"]
    shape = (run.metrics().get("test_pictures"), len(info.classes))
    if logits.shape != shape or labels.shape != shape[:1] or not _usable(logits, labels):
        raise UserError(f"The test predictions of {run} do not fit the rest of it: it is damaged.")
    above = info.superclasses != info.classes
    parents = info.parents if above else ()
    found = [Level(info.labels, info.classes, parents, logits.softmax(1), labels)]
    if parents:
        coarse = coarse_probabilities(logits, parents)
        found.append(Level("coarse", info.superclasses, (), coarse, torch.tensor(parents)[labels]))
    return found


def _usable(logits: Tensor, labels: Tensor) -> bool:
    """Return whether logits are finite numbers, and labels are of their classes."""
    types = logits.dtype == torch.float32 and labels.dtype == torch.int64
    known = (labels >= 0) & (labels < logits.shape[1])
    return bool(types and logits.isfinite().all() and known.all())
