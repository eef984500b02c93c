"""Pictures from the network: whole, within a limit of bytes and one of time, by http(s) alone."""

import http.client
import queue
import threading
import time
import urllib.request

from hundredfold.support.errors import UnavailableError, UserError

MOST_BYTES = 100 * 2**20
"""Of a picture."""
TIMEOUT = 30.0
"""Seconds without a byte."""
MOST_SECONDS = 120.0
"""From the request to the last byte: a server that sends a byte now and then would never end."""
CHUNK = 2**16


def is_address(text: str) -> bool:
    """Return whether a text is an http(s) address."""
    return text.lower().startswith(("http://", "https://"))


def fetch(address: str) -> bytes:
    """Return what is at an http(s) address.

    Raises:
        UnavailableError: it cannot be reached, takes more than MOST_SECONDS, or was cut short.
        UserError: it is larger than MOST_BYTES.
    """
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    # In a thread: looking up a name and reading headers have no limit of time in all.
    threading.Thread(target=lambda: answer.put(_outcome(address)), daemon=True).start()
    try:
        outcome = answer.get(timeout=MOST_SECONDS)
    except queue.Empty:
        outcome = TimeoutError(f"it took more than {MOST_SECONDS:.0f} s")
    if isinstance(outcome, bytes):
        return outcome
    if isinstance(outcome, UserError):
        raise outcome
    raise UnavailableError(f"{address} cannot be had: {outcome}.") from outcome


def _outcome(address: str) -> bytes | Exception:
    try:
        return _read(address)
    except Exception as error:  # raised again by who waits for it
        return error


def _read(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "hundredfold"})  # noqa: S310
    ends, content = time.monotonic() + MOST_SECONDS, bytearray()
    with _opener().open(request, timeout=TIMEOUT) as response:
        while chunk := response.read1(CHUNK):
            content += chunk
            if len(content) > MOST_BYTES:
                raise UserError(f"{address} is larger than {MOST_BYTES >> 20} MiB.")
            if time.monotonic() > ends:
                raise TimeoutError  # nobody waits any more
        promised = response.headers.get("Content-Length", "")
    if promised.isdecimal() and len(content) < int(promised):
        raise http.client.IncompleteRead(bytes(content), int(promised) - len(content))
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http(s) addresses and follows redirections to such, but to no others."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
