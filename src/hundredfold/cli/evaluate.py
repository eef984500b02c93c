"""`hundredfold evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.bundled import find_run
from hundredfold.console import console
from hundredfold.display import metrics_table
from hundredfold.evaluate import evaluate


def main(arguments: Sequence[str]) -> None:
    """Measure a run's weights again on its test set."""
    tyro.cli(evaluate_run, prog="hundredfold evaluate", args=arguments)


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional], /, data: str = "", device: str = ""
) -> None:
    """Measure a run's weights again on the test set, and compare with what training recorded.

    Args:
        run: The run directory, or `strong`: the model that comes with hundredfold.
        data: Where the data is now, as in train; empty for where the run found it.
        device: As in train; empty for the one that the run asked for.
    """
    found = find_run(run)
    metrics = evaluate(found, data, device)
    console.print(metrics_table(metrics))
    if not found.finished:
        last, epochs = found.checkpoint(), found.config.epochs
        progress = f"{(last.facts['progress'] if last else 1) * epochs:.3g} of {epochs:g} epochs"
        console.print(f"The run was not finished: these are its weights after {progress}.")
        return
    stored = found.metrics
    recorded = {view: stored.get(view) for view in ("test", "test_flip")}
    if all(recorded[view] == metrics[view] for view in recorded):
        console.print("Equal, to the last digit, to what training recorded.")
    else:
        console.print(
            f"NOT equal to what training recorded, {recorded}. "
            "Another device, thread count or version of torch rounds differently."
        )
