"""Unusual and malicious archives and tables."""

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from support.making import Load
from support.pets import picture, pictures

from hundredfold.data.archive import unpack_archive
from hundredfold.support.errors import UserError
from hundredfold.support.files import cache_folder


def content(path: Path) -> bytes:
    """Return the content of a new picture file."""
    return picture(path / "x.png").read_bytes()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
    """Add a member to an archive. The data of a link is the path that it points to."""
    info = tarfile.TarInfo(name)
    info.type = kind
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        info.linkname = data.decode()
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def test_hard_links_are_copied_and_other_links_reported(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    path = tmp_path / "pets.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            add(tar, f"pets/store/{i}.png", content(tmp_path))
            add(tar, f"pets/cat/{i}.png", f"pets/store/{i}.png".encode(), tarfile.LNKTYPE)
        add(tar, "pets/dog/0.png", b"../store/0.png", tarfile.SYMTYPE)
        add(tar, "pets/dog/1.png", b"/etc/passwd", tarfile.LNKTYPE)
        add(tar, "pets/dog/2.png", b"pets/none/2.png", tarfile.LNKTYPE)
        add(tar, "pets/dog/3.png", kind=tarfile.CHRTYPE)
        add(tar, "pets/store/0.png", content(tmp_path))  # does not change the copy
    found = load(path)
    assert found.classes == ("cat", "store") and len(found.train) + len(found.test) == 8
    folder = unpack_archive(path, cache_folder() / "unpacked").folder / "pets"
    assert (folder / "cat/1.png").read_bytes() == (folder / "store/1.png").read_bytes()
    assert (folder / "cat/0.png").read_bytes() != (folder / "store/0.png").read_bytes()
    assert "pets/dog (4 files: a link or a device). This data is left out." in said[0]
    assert "4 other files skipped." in said[-1]
    with pytest.raises(UserError, match="1 class has no usable picture"):
        load(path, strict=True)


@pytest.mark.parametrize("kind", ["pets.tar", "pets.zip"])
def test_an_empty_class_in_an_archive_is_reported(
    kind: str, tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"cat": 5, "dog": 5, "hen": 0})
    (root / "owl").mkdir()
    (root / "owl/1.HEIC").write_bytes(b"x")
    picture(root / "hen/x.png").rename(root / "hen/1")  # recognised by its content
    (root / "empty").mkdir()
    if kind == "pets.tar":
        with tarfile.open(tmp_path / kind, "w") as tar:
            tar.add(root, "a/b/pets")
    else:
        with zipfile.ZipFile(tmp_path / kind, "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, f"a/b/pets/{file.relative_to(root)}")
            archive.writestr("__MACOSX/a/b/._x.png", b"x")
    assert load(tmp_path / kind).classes == ("cat", "dog", "hen")
    assert said[0] == (
        "2 classes have no usable picture: a/b/pets/empty (empty), a/b/pets/owl (1 file: HEIC is "
        "not supported: convert it to JPEG). This data is left out."
    )


def test_an_archive_may_contain_a_table_in_a_nested_folder(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"a": 4})
    rows = [f"a/a-{i}.png,{'xy'[i % 2]}" for i in range(4)]
    (root / "list.csv").write_text("path,label\n" + "\n".join(rows))
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(root, "more/pets")
    assert load(tmp_path / "pets.tar").classes == ("x", "y")


def test_a_colon_in_a_name_is_not_a_drive(tmp_path: Path, load: Load) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("ratio 1:2/1.png", "ratio 1:2/2.png", "16:9/1.png", "16:9/2.png"):
            archive.writestr(name, content(tmp_path))
    assert load(tmp_path / "pets.zip").classes == ("16:9", "ratio 1:2")


def named(path: Path, names: list[bytes], data: bytes) -> Path:
    """Write a .zip that does not state the encoding of its names, as Windows does."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(f"{i:0{len(name)}d}", data + bytes([i]))
    whole = path.read_bytes()
    for i, name in enumerate(names):
        whole = whole.replace(f"{i:0{len(name)}d}".encode(), name)
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    "encoding, classes, sentence",
    [
        ("gbk", ("狗", "猫"), "were read as Chinese"),
        ("utf-8", ("狗", "猫"), ""),
        ("cp437", ("gürteltier", "käfer"), "may have been misread"),
        ("cp1252", ("gⁿrteltier", "kΣfer"), "may have been misread"),
    ],
)
def test_zip_names_without_a_stated_encoding(
    encoding: str,
    classes: tuple[str, str],
    sentence: str,
    tmp_path: Path,
    load: Load,
    said: list[str],
) -> None:
    written = ("gürteltier", "käfer") if encoding.startswith("cp") else classes
    names = [f"{name}/long name {i}.png".encode(encoding) for name in written for i in range(5)]
    found = load(named(tmp_path / "pets.zip", names, content(tmp_path)))
    assert found.classes == classes
    assert [sentence in text for text in said[:1]] == [True]
    assert any("does not state the encoding" in text for text in said) == (sentence != "")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_huge_headers_are_refused(kind: bytes, tmp_path: Path, load: Load) -> None:
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", 1) as out, tarfile.open(fileobj=out, mode="w|") as tar:
        add(tar, "a/1.png", content(tmp_path))
        add(tar, "././@LongLink", b"x" * 2**25, kind)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a member whose header is larger than"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23  # also while it checks for CIFAR-100
    finally:
        tracemalloc.stop()


def test_names_of_a_few_hundred_bytes_are_read(tmp_path: Path, load: Load) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for i, folder in enumerate(("a" * 200, "a" * 200, "ä" * 90, "ä" * 90)):
            add(tar, f"{'deep/' * 20}{folder}/{i}.png", content(tmp_path))
    assert len(load(tmp_path / "x.tar").classes) == 2


def test_skipped_members_count_towards_the_size_limit(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        add(tar, "a/notes.pdf", bytes(2**24))
        add(tar, "a/1.png", content(tmp_path))
    assert len(unpack_archive(path, tmp_path / "unpacked").skipped) == 1
    monkeypatch.setattr("hundredfold.data.unpack.FREE_BYTES", 2**16)
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="unpacks to more than"):
        unpack_archive(path, tmp_path / "unpacked")


def test_copies_of_links_count_towards_the_size_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "a/0.bmp", bytes(2**16))
        for i in range(1, 99):
            add(tar, f"a/{i}.bmp", b"a/0.bmp", tarfile.LNKTYPE)
    monkeypatch.setattr("hundredfold.data.unpack.FREE_BYTES", 2**20)
    with pytest.raises(UserError, match="unpacks to more than"):
        unpack_archive(path, tmp_path / "unpacked")


@pytest.mark.parametrize("name", ["x.csv", "x.zip", "x.tar.gz", "x.parquet"])
def test_only_regular_files_are_read(name: str, tmp_path: Path, load: Load) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero-{name}"):
        with pytest.raises(UserError, match="is not a folder, an archive"):
            load(path)


def test_a_list_of_members_too_large_for_memory_is_refused(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.archive.MAX_DIRECTORY", 2**12)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(100):
            archive.writestr(f"a/{i}.png", b"")
    with pytest.raises(UserError, match=r"The list of members in .* is larger than"):
        load(tmp_path / "x.zip")
