"""The data of a run, for commands that can do without it."""

from hundredfold.data.dataset import Dataset
from hundredfold.data.sample import load_sample
from hundredfold.evaluation.evaluate import run_data_if_any
from hundredfold.runs.bundled import is_bundled
from hundredfold.runs.run import Run
from hundredfold.support.console import console, escape


def data_at_hand(run: Run, data: str, lacking: str) -> Dataset | None:
    """Return the data to compare with, if it is at hand; of a bundled model the bundled sample.

    Args:
        run: the run.
        data: where the data is now; empty for where the run found it.
        lacking: what the user is told that there will not be, where it is not.

    Raises:
        UserError: data was named, and is not at hand.
    """
    if is_bundled(run) and not data:
        return load_sample().with_labels(run.info().labels)
    dataset, why = run_data_if_any(run, data)
    if why:
        console.print(f"[yellow]Without {lacking}:[/] {escape(why)}")
    return dataset
