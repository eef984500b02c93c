"""Downloads from a local server that misbehaves on request."""

import http.server
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hundredfold.data.download import download
from hundredfold.support.errors import UnavailableError

CONTENT = random.Random(0).randbytes(1_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve CONTENT, cut `cuts` connections half-way, and honour ranges if `ranges` is true."""

    cuts = 0
    ranges = True
    seen: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).seen.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT)
        if self.cuts:
            type(self).cuts -= 1
            end = start + (end - start) // 2
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[tuple[type[Handler], str]]:
    """The handler and the URL of a running server."""

    class Fresh(Handler):
        """A handler with counters for this test only."""

    Fresh.seen = []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield Fresh, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_arrives_complete(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    download(server[1] + "/file", target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_lost_connection_is_resumed(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    handler, address = server
    handler.cuts = 2
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert handler.seen == [None, "bytes=500000-", "bytes=750000-"]


def test_incomplete_data_is_kept_for_the_next_call(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.cuts = 3
    with pytest.raises(
        UnavailableError, match="the connection was lost; run the same command again"
    ):
        download(address + "/file", tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size == 875_000
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file_again(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.ranges, handler.cuts = False, 1
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_deleted(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    download(server[1] + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_error_names_a_missing_file(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"Cannot download http://.*/other: .*Not Found"):
        download(server[1] + "/other", tmp_path / "file")
    assert len(server[0].seen) == 1


def test_the_error_names_a_target_that_cannot_be_written(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UnavailableError, match=r"Cannot write .*taken/file"):
        download(server[1] + "/file", tmp_path / "taken" / "file")


def test_the_error_explains_a_full_disk(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(UnavailableError, match=r"No space left.*Make room there"):
        download(server[1] + "/file", tmp_path / "file")
