"""`hundredfold export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hundredfold.export.export import LIMIT, export
from hundredfold.metrics.scores import metric_rows
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, escape, make_table
from hundredfold.support.text import plural


@dataclass(frozen=True)
class ExportOptions:
    """Export a run's model for other programs: pixels in, calibrated probabilities out.

    The exported model is compared with the run's model in batches of 1, 2 and 7 test pictures, or
    random pictures if the run's data is not available. If any probability differs by more than
    rounding can explain, the file is deleted and the exit code is 1.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory. The model is written to its folder `export`."""
    to: Literal["onnx", "torch"] = "onnx"
    """The format. onnx: model.onnx for onnxruntime and others, with a script that predicts. torch:
    model.pt2 for torch.export.load."""
    int8: bool = False
    """Also export model-int8.onnx, a variant with 8-bit weights and activations."""
    data: str = ""
    """Where the data is now, as --data of train. Empty for the place recorded in the run."""


def main(arguments: Sequence[str]) -> None:
    """Export the model of a run."""
    options = tyro.cli(ExportOptions, prog="hundredfold export", args=arguments)
    found = export(
        find_run(options.run),
        options.to,
        options.data,
        int8=options.int8,
        tell=lambda text: console.print(escape(text), style="yellow"),
    )
    most = max(found.parity.values())
    console.print(
        f"Same predictions as the run on {plural(found.pictures, 'picture')}, in batches of "
        f"{', '.join(found.parity)}: probabilities differ by at most {most:.1e} "
        f"(limit {LIMIT:.0e})."
    )
    if found.known is not None:
        console.print(f"The values `known` differ by at most {found.known:.1e}.")
    if found.accuracy:
        rows = metric_rows(*found.accuracy.values())
        console.print(make_table(["test set", *found.accuracy], rows))
    for path in sorted(found.path.parent.iterdir()):
        console.print(f"{escape(str(path))}  {path.stat().st_size / 2**20:.1f} MiB")
