"""Find the data of a run for commands that also work without it, and say what a run lacks."""

from hundredfold.data.dataset import Dataset
from hundredfold.data.sample import load_sample
from hundredfold.evaluation.evaluate import run_data_if_any
from hundredfold.runs.bundled import is_bundled
from hundredfold.runs.run import Run
from hundredfold.support.console import console, error_console, escape


def say_if_unfinished(run: Run) -> None:
    """Tell the user if a run that is about to be used is not finished."""
    if not run.finished:
        error_console.print(
            f"[yellow]{escape(str(run))} is not finished:[/] its last checkpoint is used, and the "
            "probabilities are not calibrated."
        )


def optional_data(run: Run, data: str, missing: str) -> Dataset | None:
    """Return the data of a run, or None and a message to the user if it was not found.

    For a bundled model without `data`, return the bundled sample.

    Args:
        run: the run.
        data: where the data is now; empty for the place recorded in the run.
        missing: what the command leaves out without the data, for the message.

    Raises:
        UserError: `data` is given, and the data is not there.
    """
    if is_bundled(run) and not data:
        return load_sample().with_labels(run.info().labels)
    dataset, why = run_data_if_any(run, data)
    if why:
        console.print(f"[yellow]Continuing without {missing}:[/] {escape(why)}")
    return dataset
