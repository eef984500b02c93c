"""Downloads from a real server on this machine, which misbehaves on request."""

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
    """Serves CONTENT; `cuts` connections are cut half-way; ranges are honoured if told."""

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
    """A server on a free port, and its address."""

    class Fresh(Handler):
        """A handler whose counters are this test's own."""

    Fresh.seen = []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield Fresh, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_arrives_whole(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    download(server[1] + "/file", target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_cut_download_goes_on_where_it_was(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.cuts = 2
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert handler.seen == [None, "bytes=500000-", "bytes=750000-"]


def test_what_came_is_kept_for_the_next_try(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.cuts = 3
    with pytest.raises(UnavailableError, match="the connection was cut; what came is kept"):
        download(address + "/file", tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size == 875_000
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.ranges, handler.cuts = False, 1
    download(address + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    download(server[1] + "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_named(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"Cannot fetch http://.*/other: .*Not Found"):
        download(server[1] + "/other", tmp_path / "file")
    assert len(server[0].seen) == 1


def test_a_target_that_cannot_be_written_is_named(
    server: tuple[type[Handler], str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UnavailableError, match=r"Cannot write .*taken/file"):
        download(server[1] + "/file", tmp_path / "taken" / "file")


def test_a_full_disk_is_said(server: tuple[type[Handler], str], tmp_path: Path) -> None:
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(UnavailableError, match=r"No space left.*Make room there"):
        download(server[1] + "/file", tmp_path / "file")
