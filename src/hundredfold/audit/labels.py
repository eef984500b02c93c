"""Find likely label errors by confident learning over cross-validated predictions.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021,
section 3.1. A picture counts for a class if its probability of that class reaches the mean over the
pictures with that label. A picture that counts for another class than its label is a likely error;
here only if its label is very improbable as well.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.config import Config
from hundredfold.inference.logits import predict_logits
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.setup import Setup, count_steps
from hundredfold.training.state import State, first_state

FOLDS = 3
MAX_OWN_SHARE = 0.5
"""Highest probability of a label that is likely wrong, as a share of the probability by chance.
With networks that are often wrong, confident learning alone marks every third label
(docs/audit.md)."""


class LabelIssue(NamedTuple):
    """A picture whose label is likely wrong."""

    picture: int
    """Index of the picture."""
    given: int
    """Index of the class that is its label."""
    suggested: int
    """Index of the class that it counts for."""
    confidence: float
    """Probability of its label: the lower, the more likely an error."""


def assign_folds(labels: Tensor) -> Tensor:
    """Return the fold of each picture, (N,) 0..FOLDS-1; each class is spread over all folds."""
    order = torch.randperm(len(labels), generator=generator(0, "folds"))
    order = order[labels[order].argsort(stable=True)]
    folds = torch.empty_like(labels)
    folds[order] = torch.arange(len(labels)) % FOLDS
    return folds


def count_audit_steps(count: int, config: Config) -> int:
    """Return the number of training steps of all folds together, for `count` pictures."""
    steps = count_steps(count - count // FOLDS, config.batch_size)
    return FOLDS * max(1, round(config.epochs * steps))


def predict_out_of_sample(
    setup: Setup, advance: Callable[[int], None]
) -> tuple[Tensor, list[State]]:
    """Predict each picture with a network that was not trained on it.

    Args:
        setup: how to train; its training split has all pictures.
        advance: receives the number of steps just finished.

    Returns:
        The probabilities (N, C), and the trained state of each fold.
    """
    pictures, states = setup.train_split, []
    folds = assign_folds(pictures.labels)
    probabilities = torch.zeros(len(pictures), len(setup.info.classes))
    for fold in range(FOLDS):
        held_out = folds == fold
        rest = replace(setup, train_split=pictures.select((~held_out).nonzero()[:, 0]))
        state = first_state(rest)
        for event in train_events(state, rest):
            if isinstance(event, StepRecord):
                advance(1)
        parts = pictures.select(held_out.nonzero()[:, 0]).parts()
        probabilities[held_out] = predict_logits(state.model, parts, setup.info).softmax(1)
        states.append(state)
    return probabilities, states


def find_label_issues(probabilities: Tensor, labels: Tensor) -> list[LabelIssue]:
    """Return the pictures whose labels are likely wrong, the most likely first.

    Args:
        probabilities: (N, C), predicted by networks that were not trained on the picture.
        labels: (N,) int64.
    """
    classes = probabilities.shape[1]
    own = probabilities.gather(1, labels[:, None])[:, 0]
    counts = labels.bincount(minlength=classes)
    # NaN for an empty class, which no probability reaches.
    threshold = torch.zeros(classes).index_add_(0, labels, own) / counts
    reached = probabilities >= threshold
    counted = torch.where(reached, probabilities, -1.0).argmax(1)
    unlikely = own < MAX_OWN_SHARE / classes
    wrong = (reached.any(1) & (counted != labels) & unlikely).nonzero()[:, 0]
    wrong = wrong[own[wrong].argsort(stable=True)]
    rows = (wrong, labels[wrong], counted[wrong], own[wrong])
    return [LabelIssue(*row) for row in zip(*(values.tolist() for values in rows), strict=True)]
