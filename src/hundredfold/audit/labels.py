"""Find likely label errors by confident learning over cross-validated predictions.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021,
section 3.1: a picture counts for a class where its probability reaches the mean of that class's own
pictures; one that counts for another class than its label is a likely error, here only where its
label is next to impossible too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.config import Config
from hundredfold.inference.logits import predict_logits
from hundredfold.training.batches import count_steps
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.setup import Setup
from hundredfold.training.state import State, first_state

FOLDS = 3
MOST_OWN = 0.5
"""Of what chance would give it: what the label of a suspect has of the probability, at most. With
networks that are often wrong, confident learning alone suspects every third label
(docs/audit.md)."""


class Suspect(NamedTuple):
    """A picture whose label is likely wrong."""

    picture: int
    given: int
    """Its label."""
    suggested: int
    """The class that it counts for."""
    confidence: float
    """Probability of its own label: the lower, the likelier an error."""


def fold_of(labels: Tensor) -> Tensor:
    """Return which fold each picture is in, (N,) 0..FOLDS-1: each class is spread over all."""
    order = torch.randperm(len(labels), generator=generator(0, "folds"))
    order = order[labels[order].argsort(stable=True)]
    folds = torch.empty_like(labels)
    folds[order] = torch.arange(len(labels)) % FOLDS
    return folds


def count_audit_steps(count: int, config: Config) -> int:
    """Return how many steps all folds take together, of a training on `count` pictures."""
    steps = count_steps(count - count // FOLDS, config.batch_size)
    return FOLDS * max(1, round(config.epochs * steps))


def out_of_sample(setup: Setup, advance: Callable[[int], None]) -> tuple[Tensor, list[State]]:
    """Predict each picture by a network that was not trained on it.

    Args:
        setup: how to train; its training split is every picture there is.
        advance: takes a number of finished steps.

    Returns:
        (N, C) probabilities; and what came of each fold.
    """
    pictures, states = setup.train_split, []
    folds = fold_of(pictures.labels)
    probabilities = torch.zeros(len(pictures), len(setup.info.classes))
    for fold in range(FOLDS):
        held = folds == fold
        rest = replace(setup, train_split=pictures.select((~held).nonzero()[:, 0]))
        state = first_state(rest)
        for event in train_events(state, rest):
            if isinstance(event, StepRecord):
                advance(1)
        parts = pictures.select(held.nonzero()[:, 0]).parts()
        probabilities[held] = predict_logits(state.model, parts, setup.info).softmax(1)
        states.append(state)
    return probabilities, states


def suspects(probabilities: Tensor, labels: Tensor) -> list[Suspect]:
    """Return the pictures whose labels are likely wrong, the likeliest first.

    Args:
        probabilities: (N, C), of networks that did not learn the picture in question.
        labels: (N,) int64.
    """
    classes = probabilities.shape[1]
    own = probabilities.gather(1, labels[:, None])[:, 0]
    counts = labels.bincount(minlength=classes)
    bar = torch.zeros(classes).index_add_(0, labels, own) / counts  # NaN of an empty class: never
    reached = probabilities >= bar
    counted = torch.where(reached, probabilities, -1.0).argmax(1)
    unlikely = own < MOST_OWN / classes
    wrong = (reached.any(1) & (counted != labels) & unlikely).nonzero()[:, 0]
    wrong = wrong[own[wrong].argsort(stable=True)]
    rows = (wrong, labels[wrong], counted[wrong], own[wrong])
    return [Suspect(*row) for row in zip(*(values.tolist() for values in rows), strict=True)]
