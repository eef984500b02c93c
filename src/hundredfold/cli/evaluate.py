"""`hundredfold evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.evaluation.evaluate import compare_with_record, evaluate
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console
from hundredfold.support.errors import FoundWrong
from hundredfold.support.text import plural
from hundredfold.training.progress import metrics_table


def main(arguments: Sequence[str]) -> None:
    """Measure a run's weights again on its test set."""
    tyro.cli(evaluate_run, prog="hundredfold evaluate", args=arguments)


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional], /, data: str = "", device: str = ""
) -> None:
    """Measure a run's weights again on the test set, and compare with what training recorded.

    Ends with exit code 1 where the figures are not equal.

    Args:
        run: The run directory, or `strong`: the model that comes with hundredfold.
        data: Where the data is now, as in train; empty for where the run found it.
        device: As in train; empty for the one that the run asked for.
    """
    found = find_run(run)
    metrics = evaluate(found, data, device)
    console.print(metrics_table(metrics))
    if not found.finished:
        last, epochs = found.checkpoint(), found.config().epochs
        progress = f"{(last.progress if last else 1) * epochs:.3g} of {plural(epochs, 'epoch')}"
        console.print(f"The run was not finished: these are its weights after {progress}.")
        return
    if difference := compare_with_record(found, metrics):
        raise FoundWrong(difference)
    console.print("Equal, to the last digit, to what training recorded.")
