"""Download pictures over http(s), with limits on size and time."""

import http.client
import queue
import threading
import time
import urllib.request

from hundredfold.support.errors import UnavailableError, UserError

MAX_BYTES = 100 * 2**20
"""Maximum size of a picture in bytes."""
TIMEOUT = 30.0
"""Maximum time in seconds without any data."""
MAX_SECONDS = 120.0
"""Maximum time in seconds for the whole download, as a server could send a byte at a time."""
CHUNK = 2**16


def is_url(text: str) -> bool:
    """Return whether a text is an http(s) URL."""
    return text.lower().startswith(("http://", "https://"))


def fetch_url(url: str) -> bytes:
    """Return the content at an http(s) URL.

    Raises:
        UnavailableError: the URL cannot be reached, takes more than MAX_SECONDS, or was cut short.
        UserError: the content is larger than MAX_BYTES.
    """
    results: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    # In a thread, because name lookup and reading headers have no limit on their total time.
    threading.Thread(target=lambda: results.put(_read_or_error(url)), daemon=True).start()
    try:
        result = results.get(timeout=MAX_SECONDS)
    except queue.Empty:
        result = TimeoutError(f"it took more than {MAX_SECONDS:.0f} s")
    if isinstance(result, bytes):
        return result
    if isinstance(result, UserError):
        raise result
    raise UnavailableError(f"{url} cannot be downloaded: {result}.") from result


def _read_or_error(url: str) -> bytes | Exception:
    try:
        return _read(url)
    except Exception as error:  # the waiting thread raises it
        return error


def _read(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "hundredfold"})  # noqa: S310
    deadline, content = time.monotonic() + MAX_SECONDS, bytearray()
    with _opener().open(request, timeout=TIMEOUT) as response:
        while chunk := response.read1(CHUNK):
            content += chunk
            if len(content) > MAX_BYTES:
                raise UserError(f"{url} is larger than {MAX_BYTES >> 20} MiB.")
            if time.monotonic() > deadline:
                raise TimeoutError  # no thread is waiting any more
        length = response.headers.get("Content-Length", "")
    if length.isdecimal() and len(content) < int(length):
        raise http.client.IncompleteRead(bytes(content), int(length) - len(content))
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http(s) URLs that follows redirections to http(s) URLs only."""
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
