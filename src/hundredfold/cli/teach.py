"""`hundredfold teach`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.cli.serving import bind, serve
from hundredfold.support.files import expanded
from hundredfold.teach.album import open_album
from hundredfold.teach.serve import make_teach_app
from hundredfold.teach.teacher import Teacher


@dataclass(frozen=True)
class TeachOptions:
    """Serve a page on which you show pictures of each class, train in seconds, and try the model.

    The pictures come from a webcam or from files. They are kept in a folder with a subfolder for
    each class, which `train`, `audit` and `explore` take as well. The model is an ordinary run.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("photos")
    """The folder of the pictures. It is created if it does not exist."""
    out: str = "runs"
    """The folder in which the run directory of each training is created."""
    host: str = "127.0.0.1"
    """The address to listen at. 127.0.0.1 serves this machine alone, 0.0.0.0 the whole network."""
    port: int = 7860
    """The port to listen at; 0 for any free port."""
    device: str = "auto"
    """The device, as in train."""


def main(arguments: Sequence[str]) -> None:
    """Serve the page until the user interrupts."""
    options = tyro.cli(TeachOptions, prog="hundredfold teach", args=arguments)
    with bind(options.host, options.port) as listening:
        teacher = Teacher(open_album(expanded(options.folder)), options.out, options.device)
        app = make_teach_app(teacher, options.host)
        with teacher.learning():
            serve(app, listening, options.host)
