"""`hundredfold evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.evaluation.evaluate import compare_with_record, evaluate
from hundredfold.metrics.scores import describe_test
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console
from hundredfold.support.errors import CheckFailed
from hundredfold.support.text import plural
from hundredfold.training.progress import metrics_table


def main(arguments: Sequence[str]) -> None:
    """Measure a run's weights on its test set again."""
    tyro.cli(evaluate_run, prog="hundredfold evaluate", args=arguments)


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional], /, data: str = "", device: str = ""
) -> None:
    """Measure a run's weights on the test set again, and compare with the recorded results.

    The exit code is 1 if the results differ.

    Args:
        run: The run directory, or `strong`, the model that comes with hundredfold.
        data: Where the data is now, as --data of train. Empty for the place recorded in the run.
        device: The device, as in train. Empty for the device in the run's configuration.
    """
    found = find_run(run)
    metrics = evaluate(found, data, device)
    console.print(metrics_table(metrics))
    console.print(f"{describe_test(metrics['test_pictures'], found.config().weights)}\n")
    if not found.finished:
        last, epochs = found.newest_checkpoint(), found.config().epochs
        progress = f"{(last.progress if last else 1) * epochs:.3g} of {plural(epochs, 'epoch')}"
        console.print(f"The run is not finished: these are its weights after {progress}.")
        return
    if difference := compare_with_record(found, metrics):
        raise CheckFailed(difference)
    console.print("All results equal the recorded ones to the last digit.")
