"""Keep the fitted head of a pretrained model if fine-tuning made the model worse."""

from dataclasses import replace

from hundredfold.metrics.scores import format_metric, learned_top1
from hundredfold.support.distributed import SINGLE_PROCESS
from hundredfold.training.head import held_out
from hundredfold.training.setup import Setup
from hundredfold.training.state import State, first_state


def fall_back_to_head(state: State, setup: Setup) -> str:
    """Return to the model before fine-tuning if it classified more held-out pictures correctly.

    Args:
        state: the state at the end of training; changed in place.
        setup: what stays the same during training.

    Returns:
        A sentence for the user; empty if nothing changed.
    """
    if not (state.head and state.history and len(held_out(setup))):
        return ""
    before, after = state.head.validation, state.history[-1].validation
    key = learned_top1(after)
    if after[key] >= before[key]:
        return ""
    alone = replace(setup, processes=SINGLE_PROCESS)  # only the first process comes here
    state.model, state.validation_logits = first_state(alone).model, None
    return (
        f"Fine-tuning lowered the accuracy on the validation pictures from "
        f"{format_metric(key, before[key])} to {format_metric(key, after[key])}, so the model is "
        "kept as it was before: pretrained features with a fitted head."
    )
