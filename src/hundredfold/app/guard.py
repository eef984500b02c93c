"""Decide which requests the app answers, and set the security headers of its answers.

A page of another server can make the browser of its reader send requests to this server: under a
name of its own that points here (DNS rebinding), or from its own origin. Neither gets an answer.
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
    "Open this page with the server's IP address, with localhost, with the name of the machine, or "
    "with the name that was passed as --host. The server refuses all other names, and requests "
    "that come from pages of other servers."
)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Headers of every answer; the page has a Content-Security-Policy of its own (`app.page`)."""


def own_names(host: str) -> set[str]:
    """Return the names, other than IP addresses, of a server that listens at `host`."""
    machine = socket.gethostname().lower()
    return {"localhost", host.lower(), machine, machine.partition(".")[0] + ".local"}


def guarded(app: ASGIApp, names: Collection[str]) -> ASGIApp:
    """Return an app that answers only requests to an IP address or to one of these names.

    It also refuses requests from a page of another origin. A refusal has status 403, and `error` in
    JSON.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "lifespan" or _is_allowed(Headers(scope=scope), names):
            await app(scope, receive, send_with_headers)
        elif scope["type"] == "http":
            await JSONResponse({"error": REFUSED}, 403)(scope, receive, send_with_headers)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer


def _is_allowed(headers: Headers, names: Collection[str]) -> bool:
    """Return whether a request is to this server by name, and not from a page of another one."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _is_own_host(hosts[0], names):
        return False
    return all(origin.partition("://")[2].lower() == hosts[0].lower() for origin in origins)


def _is_own_host(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header has one of our names, or an IP address (no DNS is involved)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True
