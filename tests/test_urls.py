"""Downloading pictures from servers that work, fail, or do harm."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hundredfold import UnavailableError, UserError
from hundredfold.pictures import urls
from hundredfold.pictures.urls import fetch_url, is_url

CONTENT = bytes(range(256)) * 1000


class Server(BaseHTTPRequestHandler):
    """Send CONTENT in the way that the path names."""

    protocol_version = "HTTP/1.1"
    done = threading.Event()

    def do_GET(self) -> None:
        match self.path.split("/")[1:]:
            case ["whole"]:
                self.answer(200, len(CONTENT), CONTENT)
            case ["short"]:
                self.answer(200, len(CONTENT), CONTENT[:-1])
            case ["open-ended"]:
                self.answer(200, None, CONTENT)
            case ["gone"]:
                self.answer(404, 0, b"")
            case ["to", *url]:
                self.send_response(302)
                self.send_header("Location", "/".join(url))
                self.answer(None, 0, b"")
            case ["slow", "body"]:
                self.answer(200, 10, b"a")
                self.drip(b"b")
            case ["slow", "headers"]:
                self.send_response(200)
                self.flush_headers()
                self.drip(b"X-Header: 1\r\n")
        self.close_connection = True

    def answer(self, status: int | None, length: int | None, body: bytes) -> None:
        if status:
            self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def drip(self, what: bytes) -> None:
        """Send data so often that the connection does not time out."""
        while not self.done.wait(0.05):
            self.wfile.write(what)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a running server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Server.done.clear()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Server.done.set()
        server.shutdown()
        thread.join()


def test_complete_content_is_returned(url: str) -> None:
    for path in ("whole", "open-ended", f"to/{url}/whole", "to//whole"):
        assert fetch_url(f"{url}/{path}") == CONTENT
    assert fetch_url(url.replace("http", "HTTP") + "/whole") == CONTENT


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("short", "1 more expected"),
        ("gone", "404"),
        ("to/ftp://127.0.0.1:9/x.png", "unknown url type: ftp"),
        ("to/file:///etc/hostname", "not allowed"),
        ("to/data:image/png;base64,AAAA", "not allowed"),
    ],
)
def test_incomplete_content_and_other_schemes_are_refused(url: str, path: str, why: str) -> None:
    with pytest.raises(UnavailableError, match=f"cannot be downloaded: .*{why}"):
        fetch_url(f"{url}/{path}")


@pytest.mark.parametrize("path", ["slow/body", "slow/headers"])
def test_a_download_that_takes_too_long_fails(
    url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "MAX_SECONDS", 0.3)
    with pytest.raises(UnavailableError, match=r"it took more than 0 s"):
        fetch_url(f"{url}/{path}")


def test_content_that_is_too_large_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "MAX_BYTES", len(CONTENT) - 1)
    for path in ("whole", "open-ended"):
        with pytest.raises(UserError, match="larger than 0 MiB"):
            fetch_url(f"{url}/{path}")


def test_a_url_is_recognised_by_its_scheme() -> None:
    assert is_url("https://host/a.png")
    assert is_url("HTTP://host/a.png")
    assert not is_url("ftp://host/a.png")
    assert not is_url("https.png")
