"""Pictures from the network: what a server may do, and what is refused."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hundredfold import UnavailableError, UserError
from hundredfold.pictures import urls
from hundredfold.pictures.urls import fetch, is_address

CONTENT = bytes(range(256)) * 1000


class Server(BaseHTTPRequestHandler):
    """Sends CONTENT, or does not, as the path says."""

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
            case ["to", *address]:
                self.send_response(302)
                self.send_header("Location", "/".join(address))
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
        """Send something now and then: never so long apart that the connection is given up."""
        while not self.done.wait(0.05):
            self.wfile.write(what)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a running server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Server.done.clear()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Server.done.set()
        server.shutdown()
        thread.join()


def test_what_is_whole_is_taken(address: str) -> None:
    for path in ("whole", "open-ended", f"to/{address}/whole", "to//whole"):
        assert fetch(f"{address}/{path}") == CONTENT
    assert fetch(address.replace("http", "HTTP") + "/whole") == CONTENT


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
def test_what_is_not_whole_or_leads_elsewhere_is_refused(address: str, path: str, why: str) -> None:
    with pytest.raises(UnavailableError, match=f"cannot be had: .*{why}"):
        fetch(f"{address}/{path}")


@pytest.mark.parametrize("path", ["slow/body", "slow/headers"])
def test_a_server_that_never_ends_is_given_up(
    address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "MOST_SECONDS", 0.3)
    with pytest.raises(UnavailableError, match=r"it took more than 0 s"):
        fetch(f"{address}/{path}")


def test_more_bytes_than_a_picture_has_are_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "MOST_BYTES", len(CONTENT) - 1)
    for path in ("whole", "open-ended"):
        with pytest.raises(UserError, match="larger than 0 MiB"):
            fetch(f"{address}/{path}")


def test_an_address_is_one_by_its_scheme() -> None:
    assert is_address("https://host/a.png")
    assert is_address("HTTP://host/a.png")
    assert not is_address("ftp://host/a.png")
    assert not is_address("https.png")
