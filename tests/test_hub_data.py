"""Data sets of the Hugging Face Hub, from a server on this machine that answers as the Hub does."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.pets import picture, pictures
from support.shards import write_parquet

from hundredfold import UserError
from hundredfold.data.huggingface import _patterns, download_dataset
from hundredfold.pictures.load import picture_suffixes

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """The data set pets/ours, which consists of the files in a folder."""

    folder: Path

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


class Answer(BaseHTTPRequestHandler):
    """An answer of the Hub to a request about a data set, a list of its files, or a file."""

    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        status, headers, body = self.find(self.path.partition("?")[0])
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def find(self, path: str) -> tuple[int, dict[str, str], bytes]:
        files = self.server.files()
        if path.startswith(f"/datasets/pets/ours/resolve/{COMMIT}/"):
            body = files[path.partition(f"{COMMIT}/")[2]]
            etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
            return 200, {"ETag": etag, "X-Repo-Commit": COMMIT}, body
        if path == f"/api/datasets/pets/ours/tree/{COMMIT}":
            sizes = [
                {"type": "file", "path": name, "size": len(body), "oid": "0"}
                for name, body in files.items()
            ]
            return 200, {}, json.dumps(sizes).encode()
        if path.startswith("/api/datasets/pets/ours"):
            about = {"id": "pets/ours", "sha": COMMIT, "siblings": [], "private": False}
            return 200, {}, json.dumps(about).encode()
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    root = pictures(tmp_path / "pets", {"train/cat": 6, "train/dog": 6, "test/cat": 2})
    with Hub(("127.0.0.1", 0), Answer) as server:
        server.folder = write_parquet(root, tmp_path / "repository" / "main").parent
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def audit(hub: Hub, data: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Audit a data set of the Hub, which downloads it."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(out.parent / "home"),
    }
    command = [sys.executable, "-m", "hundredfold", "audit", data, "--out", str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_a_data_set_of_the_hub_is_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "main" / "weights.bin").write_bytes(b"x" * 1000)
    picture(hub.folder / "thumbnail.png")  # of the page about the data set
    out = tmp_path / "out"
    for data in ("hf:pets/ours", "hf:pets/ours/main", "hf:pets/ours/main/data"):
        found = audit(hub, data, out)
        assert found.returncode == 0 and found.stderr == "", found.stderr
        assert json.loads((out / "audit.json").read_text())["pictures"] == 14
    assert list((tmp_path / "home").rglob("*.parquet"))
    assert not list((tmp_path / "home").rglob("weights.bin"))
    assert not list((tmp_path / "home").rglob("thumbnail.png"))
    missing = audit(hub, "hf:pets/theirs", out)
    assert missing.returncode == 2
    assert "has no data set pets/theirs, or it is private" in missing.stderr
    hub.server_close()
    hub.shutdown()
    assert audit(hub, "hf:pets/ours", out).returncode == 0
    offline = audit(hub, "hf:pets/others", out)
    assert offline.returncode == 2
    assert "Cannot download pets/others from the Hugging Face Hub" in offline.stderr
    with pytest.raises(UserError, match="not of the form hf:OWNER/NAME"):
        download_dataset("hf:pets")


def test_patterns_match_every_kind_of_picture_in_either_case() -> None:
    patterns = _patterns("main", (*picture_suffixes(), ".tar.gz"))
    for name, is_wanted in (
        ("main/cat/1.jpg", True), ("main/cat/1.JPG", True), ("main/cat/1.Jpg", True),
        ("main/1.ppm", True), ("main/x.TAR.gz", True), ("main/x.bin", False), ("1.jpg", False),
    ):  # fmt: skip
        assert any(fnmatchcase(name, pattern) for pattern in patterns) == is_wanted, name


@pytest.mark.long
def test_loose_pictures_of_the_hub_are_a_data_set(hub: Hub, tmp_path: Path) -> None:
    shutil.rmtree(hub.folder / "main")
    pictures(hub.folder, {"train/cat": 6, "train/dog": 6, "test/cat": 2})
    (hub.folder / "notes.txt").write_text("No shard.")
    found = audit(hub, "hf:pets/ours", tmp_path / "out")
    assert found.returncode == 0 and found.stderr == "", found.stderr
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["pictures"] == 14
