"""`hundredfold app`."""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hundredfold.app.serve import make_app
from hundredfold.app.served_model import make_served_model
from hundredfold.cli.optional_data import optional_data
from hundredfold.inference.predict import Predictor
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run, is_bundled
from hundredfold.support.console import console, error_console, say
from hundredfold.support.errors import UserError

MOST_CONNECTIONS = 64
"""Largest number of connections; further ones are answered with status 503, so that waiting
pictures do not fill the memory."""

GRACE = 2
"""Time in seconds that unfinished answers have when the server ends."""


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
    if options.run is None:
        error_console.print(BY_DEFAULT)
    run = find_run(options.run or BUNDLED[0])
    predictor = Predictor.load(run, options.device)
    with _bind(options.host, options.port) as listening:
        dataset = optional_data(run, options.data, "examples and similar training pictures")
        with console.status("Computing the features of the training pictures"):
            name = run.config().name if is_bundled(run) else run.path.name
            served = make_served_model(name, predictor, dataset)
        app = make_app(served, options.host)
        listening.listen()  # from here on a browser waits for the server, and is not turned away
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        say(f"Open {address} in a browser. Press Ctrl-C to stop the server.")
        sys.stdout.flush()  # a pipe would hold it back
        _serve(app, listening)


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; done first, so that a busy port is reported at once.

    Raises:
        UserError: the address cannot be used.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(
            f"Cannot listen at {host}, port {port}: {error}. Choose another port: --port 7861."
        ) from error
    return listening


def _serve(app: Any, listening: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  # comes with the extra

    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[listening])
