"""`hundredfold app`."""

import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hundredfold.app.serve import make_app
from hundredfold.app.subject import make_subject
from hundredfold.cli.at_hand import data_at_hand
from hundredfold.inference.predict import Predictor
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run, is_bundled
from hundredfold.support.console import console, error_console
from hundredfold.support.errors import UserError

MOST_AT_ONCE = 64
"""Connections; more are told to come again (503): waiting pictures must not fill the memory."""

GRACE = 2
"""Seconds for answers on their way when the server ends: an open page holds its connection."""


@dataclass(frozen=True)
class AppOptions:
    """Show a model as a web page: drop, paste or shoot pictures.

    Programs ask it by POST /api/predict, a picture's bytes as the body.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run directory; without, the model `strong` that comes with hundredfold."""
    host: str = "127.0.0.1"
    """Where to listen: this machine alone; 0.0.0.0 lets the whole network in."""
    port: int = 7860
    """Of the address."""
    data: str = ""
    """Where the run's data is now, as in train: for examples, and for training pictures like the
    one that is asked for."""
    device: str = "auto"
    """As in train."""


def main(arguments: Sequence[str]) -> None:
    """Serve the page until interrupted."""
    options = tyro.cli(AppOptions, prog="hundredfold app", args=arguments)
    if options.run is None:
        error_console.print(BY_DEFAULT)
    run = find_run(options.run or BUNDLED[0])
    predictor = Predictor.load(run, options.device)
    listening = _listen(options.host, options.port)
    with listening, tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")  # goes with the server
        dataset = data_at_hand(run, options.data, "examples and likenesses")
        with console.status("Looking at the training pictures"):
            name = run.config().name if is_bundled(run) else run.path.name
            subject = make_subject(name, predictor, dataset)
        app = make_app(subject, Path(folder), options.host)
        listening.listen()  # who opens the address at once has to wait, but is not turned away
        host = f"[{options.host}]" if ":" in options.host else options.host
        console.print(f"Open http://{host}:{listening.getsockname()[1]}  (Ctrl-C ends it)")
        sys.stdout.flush()  # a pipe would hold it back
        _serve(app, listening)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket at an address, so that one in use is found before anything takes long.

    Raises:
        UserError: it cannot be had.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(
            f"Cannot listen at {host}, port {port}: {error}. Another one: --port 7861."
        ) from error
    return listening


def _serve(app: Any, listening: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  # comes with the extra

    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MOST_AT_ONCE,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[listening])
