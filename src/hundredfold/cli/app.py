"""`hundredfold app`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.app.serve import make_app, require_app
from hundredfold.app.served_model import make_served_model
from hundredfold.cli.optional_data import optional_data, say_if_unfinished
from hundredfold.cli.serving import bind, serve
from hundredfold.inference.predict import Predictor
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run, is_bundled
from hundredfold.support.console import console, error_console


@dataclass(frozen=True)
class AppOptions:
    """Serve a model as a web page: drop, paste or choose pictures, or take one by webcam.

    Programs send the content of a picture file by POST to /api/predict, and receive JSON.
    """

    run: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[RUN]", help_behavior_hint="(default: strong)"),
    ] = None
    """The run directory; without one, the model `strong` that comes with hundredfold."""
    host: str = "127.0.0.1"
    """The address to listen at. 127.0.0.1 serves this machine alone, 0.0.0.0 the whole network."""
    port: int = 7860
    """The port to listen at; 0 for any free port."""
    data: str = ""
    """Where the run's data is now, as --data of train. The page takes its examples and the similar
    training pictures from there. Empty for the place recorded in the run."""
    device: str = "auto"
    """The device, as in train."""


def main(arguments: Sequence[str]) -> None:
    """Serve the page until the user interrupts."""
    options = tyro.cli(AppOptions, prog="hundredfold app", args=arguments)
    require_app()
    if options.run is None:
        error_console.print(BY_DEFAULT)
    run = find_run(options.run or BUNDLED[0])
    predictor = Predictor.load(run, options.device)
    say_if_unfinished(run)
    with bind(options.host, options.port) as listening:
        dataset = optional_data(run, options.data, "examples and similar training pictures")
        with console.status("Computing the features of the training pictures"):
            name = run.config().name if is_bundled(run) else run.path.resolve().name
            served = make_served_model(name, predictor, dataset)
        app = make_app(served, options.host)
        serve(app, listening, options.host)
