"""`hundredfold reproduce`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, counted, escape
from hundredfold.support.device import pick_device
from hundredfold.support.environment import describe_environment
from hundredfold.support.errors import CheckFailed
from hundredfold.training.resume import differences, reproduce


def main(arguments: Sequence[str]) -> None:
    """Repeat a run."""
    tyro.cli(reproduce_run, prog="hundredfold reproduce", args=arguments)


def reproduce_run(run: Annotated[Path, tyro.conf.Positional], /, data: str = "") -> None:
    """Repeat a finished run, and check that every epoch is the same to the bit.

    Stops with exit code 1 at the first difference. The run itself stays as it is.

    Args:
        run: The run directory.
        data: Where the data is now, as --data of train. Empty for the place recorded in the run.
    """
    found = find_run(run)
    here = describe_environment(pick_device(found.config().device), "")
    for difference in differences(found.environment(), here):
        console.print(f"[yellow]{escape(difference)}. This alone may change the result.[/]")
    steps = sum(len(epoch.loss) for epoch in found.history())
    with counted(f"{found.config().name}: steps", steps) as advance:
        for part in reproduce(found, data, advance):
            if part.difference:
                raise CheckFailed(f"The first difference is in {part.what}: {part.difference}.")
            console.print(f"{part.what}: the same")
    console.print(f"{escape(str(found))} was reproduced to the bit.")
