"""Find out how a model recognises pictures that show none of its classes."""

import torch
from torch import Tensor

from hundredfold.augment import generator
from hundredfold.data.dataset import Split
from hundredfold.inference.features import predict_with_features
from hundredfold.inference.known import Known, make_known, outside_part, principal_directions
from hundredfold.metrics.folds import stratified_folds
from hundredfold.models.levels import LAST_FEATURES
from hundredfold.training.cross_validation import group_pictures
from hundredfold.training.head import head_order, held_out, held_out_logits, view_features
from hundredfold.training.setup import Setup
from hundredfold.training.state import State

SAMPLE = 500
"""Number of training pictures of which the features of a fine-tuned model are computed."""
MOST = 1000
"""Most training pictures that are held out in turn."""
FEW = 50
"""Number of held-out pictures that are too few to say how familiar pictures look."""
FOLDS = 5


def fit_known(setup: Setup, state: State, held_logits: Tensor | None) -> Known | None:
    """Return how a model recognises pictures that show none of its classes.

    The held-out pictures say how familiar pictures look that the model has not seen. If they are
    few and only the head is trained, training pictures are held out in turn as well.

    Args:
        setup: the pictures and the configuration.
        state: the state at the end of training.
        held_logits: (H, C) logits of the held-out pictures by a head that was not fitted to them.

    Returns:
        None if there are too few pictures, or if the model is not a pretrained one: features of
        networks that are trained from scratch cannot tell (docs/LOG.md, 2026-11-29).
    """
    if state.head is None:
        return None
    held = held_out(setup)
    if held_logits is not None and len(held) >= FEW:
        features = _features(setup.train_split.select(head_order(setup)[:SAMPLE]), setup, state)
        outside = outside_part(_features(held, setup, state), *principal_directions(features))
        return make_known(features, held_logits.amax(1), outside)
    splits = [setup.train_split.select(head_order(setup)[:MOST]), held]
    if state.history or sum(map(len, splits)) < FEW:
        return None
    features = view_features(state.model, splits, setup)[0]
    labels, groups = torch.cat([split.labels.cpu() for split in splits]), group_pictures(splits)
    folds = stratified_folds(labels, FOLDS, generator(setup.config.seed, "known"), groups)
    classes, balance = len(setup.info.classes), setup.balances_head
    logits = held_out_logits(
        features[None], labels, classes, folds, state.head.strength, balance=balance
    )
    features, outside = _own(features, setup), torch.zeros(len(labels))
    for fold in folds.unique():
        own = folds == fold
        if own.all():  # all pictures belong together
            return None
        outside[own] = outside_part(features[own], *principal_directions(features[~own]))
    return make_known(features, logits.amax(1), outside)


def _features(split: Split, setup: Setup, state: State) -> Tensor:
    """Return the features (N, D) of pictures, those of a fine-tuned model without the cache."""
    if state.history:
        return _own(predict_with_features(state.model, split.parts(), setup.info)[1], setup)
    return _own(view_features(state.model, [split], setup)[0], setup)


def _own(features: Tensor, setup: Setup) -> Tensor:
    """Return the features of the last layer without those of earlier stages."""
    return features[:, :LAST_FEATURES] if setup.info.levels else features
