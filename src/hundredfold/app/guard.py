"""Who may ask the app, and what each of its answers tells a browser.

A page that somebody has open elsewhere can make their browser ask this server too, under a name of
its own that points here (DNS rebinding) or from its own origin. Neither gets an answer.
"""

import ipaddress
import socket
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

REFUSED = (
    "Open this server by its IP address, as localhost, or by the name of this machine or that "
    "--host says: it answers to no other name, and to no page of another server."
)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of each answer: Gradio's scripts and styles are within its page, all else comes from here."""


def own_names(host: str) -> set[str]:
    """Return the names that a server which listens at `host` has, beside its IP addresses."""
    machine = socket.gethostname().lower()
    return {"localhost", host.lower(), machine, machine.partition(".")[0] + ".local"}


def guarded(app: ASGIApp, names: Collection[str]) -> ASGIApp:
    """Return an app that answers only those who call it by an IP address or one of these names.

    What a page of another origin asks is refused, too: status 403, and `error` in JSON.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] == "lifespan" or _may_ask(Headers(scope=scope), names):
            await app(scope, receive, send_marked)
        elif scope["type"] == "http":
            await JSONResponse({"error": REFUSED}, 403)(scope, receive, send_marked)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer


def _may_ask(headers: Headers, names: Collection[str]) -> bool:
    """Return whether a request names this server, and comes from no page of another one."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _is_ours(hosts[0], names):
        return False
    return all(urlsplit(origin).netloc.lower() == hosts[0].lower() for origin in origins)


def _is_ours(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header is an IP address, which no one else can point here, or ours."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True
