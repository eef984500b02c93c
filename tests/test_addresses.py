"""Data at an address: from a web server on this machine, and from a store of fsspec."""

import http.server
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from support.making import Load
from support.pets import picture
from support.serving import serve_folder
from support.shards import write_tars

from hundredfold import UnavailableError, UserError, load_data
from hundredfold.data.load import find_source, needs_network
from hundredfold.support.files import cache_folder


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL at which a server offers its files."""
    folder = tmp_path / "web"
    folder.mkdir()
    with serve_folder(folder) as url:
        yield folder, url


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """A store in memory, which is as far away for the program as s3:// is."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.rm("/", recursive=True)


def zipped(root: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "my pets"), "zip", root))


def test_an_archive_on_the_web_equals_its_folder(
    web: tuple[Path, str], root: Path, load: Load
) -> None:
    folder, url = web
    zipped(root, folder)
    address = f"{url}/my%20pets.zip?download=1#top"
    found = load_data(address, size=32, strict=True)
    assert found.digest() == load(root, size=32).digest()
    assert found.source == address
    assert load_data(found.source, size=32).digest() == found.digest()
    assert needs_network(address)


def test_only_a_changed_file_is_downloaded_again(web: tuple[Path, str], root: Path) -> None:
    folder, url = web
    archive = zipped(root, folder)
    path = find_source(f"{url}/{archive.name}".replace(" ", "%20"))
    assert path and path.read_bytes() == archive.read_bytes()
    path.write_bytes(b"as it was downloaded")
    for same in (url, url.replace("http", "HTTP")):
        assert find_source(f"{same}/my%20pets.zip") == path
        assert path.read_bytes() == b"as it was downloaded"
    os.utime(archive, (1, 1))
    find_source(f"{url}/my%20pets.zip")
    assert path.read_bytes() == archive.read_bytes()


def test_a_file_without_a_date_is_downloaded_again(
    web: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = web
    (folder / "x.zip").write_bytes(b"1")
    handler = http.server.SimpleHTTPRequestHandler
    send = handler.send_header
    monkeypatch.setattr(
        handler,
        "send_header",
        lambda self, name, value: name == "Last-Modified" or send(self, name, value),
    )
    find_source(f"{url}/x.zip")
    (folder / "x.zip").write_bytes(b"2")
    path = find_source(f"{url}/x.zip")
    assert path and path.read_bytes() == b"2"


def test_the_start_of_another_version_is_not_used(web: tuple[Path, str]) -> None:
    folder, url = web
    (folder / "x.zip").write_bytes(b"new" * 1000)
    path = find_source(f"{url}/x.zip")
    assert path
    path.unlink()
    path.with_name("x.zip.part").write_bytes(b"old" * 500)
    (folder / "x.zip").write_bytes(b"newest" * 1000)
    assert find_source(f"{url}/x.zip") == path
    assert path.read_bytes() == b"newest" * 1000


def test_shards_on_the_web_have_their_class_names_and_missing_ones_are_named(
    web: tuple[Path, str], root: Path, load: Load
) -> None:
    folder, url = web
    shards = write_tars(root, folder / "shards")
    said: list[str] = []
    found = load_data(f"{url}/shards/{{train,test}}-{{000..001}}.tar", said.append)
    assert found.classes == ("cat", "dog")
    assert found.digest() == load(shards).digest()
    assert any("1 of 4 shards are missing: test-001.tar" in sentence for sentence in said)


def test_without_a_network_the_earlier_download_is_used(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    shards = write_tars(root, folder / "shards")
    with serve_folder(folder) as url:
        first = load_data(f"{url}/shards/train-{{000..001}}.tar")
    capsys.readouterr()
    again = load_data(f"{url}/shards/train-{{000..001}}.tar")
    assert again.digest() == first.digest()
    out = capsys.readouterr().out
    assert "The earlier download is used, because these cannot be read now: " in out
    with pytest.raises(UnavailableError, match=r"Cannot read http://.*test-000\.tar: .*refused"):
        load_data(f"{url}/shards/test-000.tar")
    assert shards.exists()


def test_an_expired_address_does_not_delete_the_earlier_download(
    web: tuple[Path, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = web
    archive = zipped(root, folder)
    path = find_source(f"{url}/my%20pets.zip")

    def deny(handler: http.server.SimpleHTTPRequestHandler) -> None:
        handler.send_error(403)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", deny)
    assert find_source(f"{url}/my%20pets.zip") == path
    assert path and path.read_bytes() == archive.read_bytes()
    with pytest.raises(UserError, match="lack the permission"):
        find_source(f"{url}/other.zip")


def test_all_kinds_of_pictures_of_a_store_are_downloaded(
    store: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in "ab":
        for number, suffix in enumerate(("ppm", "Jpg", "jfif", "webp")):
            picture(tmp_path / "pets" / label / f"{number}.png").rename(
                tmp_path / "pets" / label / f"{number}.{suffix}"
            )
    store.put(f"{tmp_path}/pets/", "/bucket/pets", recursive=True)
    store.pipe("/bucket/pets/weights.bin", b"x")
    path = find_source("memory://bucket/pets")
    assert path and len(list(path.rglob("*.*"))) == 8
    assert "1 file at memory://bucket/pets is not downloaded" in capsys.readouterr().out


def test_a_folder_of_a_store_equals_the_folder(
    store: fsspec.AbstractFileSystem, root: Path, load: Load
) -> None:
    said: list[str] = []
    store.put(f"{root}/", "/bucket/pets", recursive=True)
    store.pipe("/bucket/pets/notes.bin", b"nothing to download")
    found = load_data("memory://bucket/pets", said.append, size=32)
    assert not any("skipped" in sentence for sentence in said)
    assert found.digest() == load(root, size=32).digest()
    assert not list(cache_folder().rglob("notes.bin"))
    gone = root / "train/cat/train-cat-0.png"
    store.rm(f"/bucket/pets/{gone.relative_to(root)}")
    gone.unlink()
    picture(root / "train/dog/train-dog-1.png")
    store.put(str(root / "train/dog/train-dog-1.png"), "/bucket/pets/train/dog/train-dog-1.png")
    changed = load_data("memory://bucket/pets", size=32)
    assert changed.digest() == load(root, size=32).digest() != found.digest()


def test_shards_of_a_store_are_read(
    store: fsspec.AbstractFileSystem, root: Path, tmp_path: Path, load: Load
) -> None:
    shards = write_tars(root, tmp_path / "shards")
    store.put(f"{shards}/", "/bucket", recursive=True)
    pattern = "memory://bucket/{train-000,train-001,test-000}.tar"
    assert load_data(pattern).digest() == load(shards).digest()
    assert load_data("memory://bucket").digest() == load(shards).digest()
    assert load_data("memory://bucket/train-000.tar").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:9/", "names no file"),
        ("http://127.0.0.1:9", "names no file"),
        ("http://127.0.0.1:9/a/b.zip", "Cannot read .*refused"),
        ("http://127.0.0.1:9/a/..%2F..%2Fb.zip", "leads outside"),
        ("http://127.0.0.1:9/%2Fetc%2Fb.zip", "leads outside"),
        ("http://127.0.0.1:9/.", "leads outside"),
        ("memory://bucket/none.zip", "There is no file at memory://bucket/none.zip"),
        ("memory://bucket/{a..", "There is no file at"),
        ("memory://x-{000000..999999}.tar", "stands for more than"),
        ("unheard://of", "Cannot read unheard://of: Protocol not known: unheard"),
        ("://", "There is no file at ://"),
    ],
)
def test_the_error_names_the_address(address: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_data(address)


def test_a_missing_file_is_not_a_lost_network(web: tuple[Path, str]) -> None:
    with pytest.raises(UserError, match="There is no file at http"):
        load_data(f"{web[1]}/none.zip")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/pets: .*s3fs.*hundredfold\[remote\]"):
        load_data("s3://bucket/pets")
