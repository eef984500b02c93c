"""Serve an app at an address, until the user interrupts."""

import socket
import sys
from typing import Any

from hundredfold.support.console import say
from hundredfold.support.errors import UserError

MOST_CONNECTIONS = 64
"""Largest number of connections; further ones are answered with status 503, so that waiting
pictures do not fill the memory."""

GRACE = 2
"""Time in seconds that unfinished answers have when the server ends."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; done first, so that a busy port is reported at once.

    Raises:
        UserError: the address cannot be used.
    """
    if not host:  # it would be every address of this machine
        raise UserError(
            "--host is empty. Pass 127.0.0.1 for this machine alone, or 0.0.0.0 for the network."
        )
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(
            f"Cannot listen on {host}, port {port}: {error}. Choose another --port, such as 7861, "
            "or check the address that you passed as --host."
        ) from error
    return listening


def serve(app: Any, listening: socket.socket, host: str) -> None:
    """Say the address of an app, and serve it.

    Args:
        app: an ASGI application.
        listening: as `bind` returned it.
        host: the address that it was bound to.
    """
    listening.listen()  # from here on a browser waits for the server, and is not turned away
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}"
    say(f"Open {address} in a browser. Press Ctrl-C to stop the server.")
    sys.stdout.flush()  # a pipe would hold it back
    _run(app, listening)


def _run(app: Any, listening: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  # comes with the extra

    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[listening])
