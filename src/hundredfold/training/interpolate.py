"""Average the weights of a pretrained model before and after fine-tuning.

Such a mean often classifies more pictures correctly than either, and its loss is lower (WiSE-FT:
Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", 2022, section 3).
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hundredfold.metrics.scores import format_metric, learned_top1, measure
from hundredfold.support.distributed import SINGLE_PROCESS
from hundredfold.training.head import held_out, refit_head
from hundredfold.training.loop import predict_validation
from hundredfold.training.setup import Setup
from hundredfold.training.state import State, first_state

TRIES = 2
"""Number of means that are tried: half of each, and a quarter of the one with the higher loss."""


class Interpolation(NamedTuple):
    """The weights that a fine-tuned model ends with."""

    share: float
    """Share of the fine-tuned weights (0..1): 0 if the model is kept as it was before."""
    validation: dict[str, float]
    """Metrics of the held-out pictures, as `measure` returns them."""


def interpolate(state: State, setup: Setup) -> Interpolation | None:
    """Take a mean of the weights before and after fine-tuning, or those before, or those after.

    The weights with the lowest loss on the held-out pictures are taken. If those are the weights
    before, the head is then fitted again, to the held-out pictures as well.

    Args:
        state: the state at the end of training; changed in place.
        setup: what stays the same during training.

    Returns:
        What was taken. None if the model was not fine-tuned or no pictures are held out.
    """
    if not (state.head and state.history and len(held_out(setup))):
        return None
    alone = replace(setup, processes=SINGLE_PROCESS)  # only the first process comes here
    before = first_state(alone).model.state_dict()
    after = {name: value.clone() for name, value in state.model.state_dict().items()}
    ends = (
        Interpolation(0.0, state.head.validation),
        Interpolation(1.0, state.history[-1].validation),
    )
    choices = [(ends[0], before, None), (ends[1], after, state.validation_logits)]
    better = min(ends, key=_loss).share
    for share in (0.5, 0.25 + better / 2):
        mean = {name: _mean(before[name], value, share) for name, value in after.items()}
        state.model.load_state_dict(mean)
        logits, info = predict_validation(state.model, alone), setup.info
        metrics = measure(logits, setup.validation_split.labels, info.labels, info.parents)
        choices.append((Interpolation(share, metrics), mean, logits))
    best, weights, state.validation_logits = min(choices, key=lambda choice: _loss(choice[0]))
    state.model.load_state_dict(weights)
    if not best.share:
        state.validation_logits = predict_validation(state.model, alone)
        state.head = refit_head(state.model, alone, state.head)
    return best


def describe(interpolation: Interpolation, state: State) -> str:
    """Return a sentence about the weights that were taken.

    Args:
        interpolation: what `interpolate` returned.
        state: the state that it changed.
    """
    key = learned_top1(interpolation.validation)
    before = format_metric(key, state.head.validation[key]) if state.head else ""
    after = format_metric(key, state.history[-1].validation[key])
    if not interpolation.share:
        return (
            "Fine-tuning raised the loss on the validation pictures, so the model from before "
            f"fine-tuning is kept. It classified {before} of these pictures correctly, and the "
            f"fine-tuned model {after}. The head is now fitted to the validation pictures as well."
        )
    if interpolation.share == 1:
        return ""
    share, correct = interpolation.share, format_metric(key, interpolation.validation[key])
    return (
        f"The final weights are an average of the weights after fine-tuning ({share:.0%}) and "
        f"before it ({1 - share:.0%}). They classify {correct} of the validation pictures "
        f"correctly (before fine-tuning: {before}, after it: {after})."
    )


def _mean(before: Tensor, after: Tensor, share: float) -> Tensor:
    """Return the weighted mean of a tensor; a count is that after fine-tuning."""
    if not after.is_floating_point():
        return after
    return torch.lerp(before.to(after.device), after, share)


def _loss(interpolation: Interpolation) -> float:
    return interpolation.validation["loss"]
