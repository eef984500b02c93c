"""Tables and archives of pictures."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.making import Load
from support.pets import RNG, picture, pictures

from hundredfold.data.archive import unpack_archive
from hundredfold.support.errors import UserError
from hundredfold.support.files import cache_folder


def test_tables_give_pictures_classes_and_splits(tmp_path: Path, load: Load) -> None:
    pictures(tmp_path, {"a": 2, "b": 3})
    lines = [f"a/a-{i}.png,ant,insect,train" for i in range(2)]
    lines += ["b/b-0.png,bee,insect,train", "b/b-1.png,bee,insect,test", "b/b-2.png,cow,beast,val"]
    table = tmp_path / "list.csv"
    table.write_text("\ufeffFile,Class,superclass,split\n" + "\n".join(lines))
    found = load(table)
    assert found.classes == ("ant", "bee") and found.superclasses == ("insect",)
    assert found.train.names == ("a/a-0.png", "a/a-1.png", "b/b-0.png")
    assert found.test.names == ("b/b-1.png",)


def test_a_parquet_table_is_read(tmp_path: Path, load: Load) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pictures(tmp_path, {"a": 3})
    rows = {"path": [f"a/a-{i}.png" for i in range(3)], "label": [1, 1, 2]}
    parquet.write_table(arrow.table(rows), tmp_path / "list.parquet")
    found = load(tmp_path / "list.parquet")
    assert found.classes == ("1", "2")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(UserError, match=r"Cannot read .*bad\.parquet"):
        load(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    "text, why",
    [
        ("path\na.png", "no column label"),
        ("a,label\n1,2", "no column path"),
        ("path,label\n", "no rows"),
        ("path,label\n,x", "line 2: there is no path"),
        ("path,label\na.png", "line 2: there is no label"),
        ("path,label,split\na.png,x,holdout", "line 2: the split must be .*, not 'holdout'"),
        ("path,label\na\0.png,x", "line 2: the path contains a zero byte"),
        (
            "path,label,superclass\na.png,x,y\nb.png,x,",
            "there is no superclass, although other",
        ),
    ],
)
def test_incomplete_tables_are_refused(text: str, why: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        load(tmp_path / "list.csv")


def test_missing_pictures_are_unusable(tmp_path: Path, load: Load, said: list[str]) -> None:
    pictures(tmp_path, {"a": 3})
    rows = [f"a/a-{i}.png,{'xy'[i % 2]}" for i in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    load(tmp_path / "list.csv")
    assert "1 picture of" in said[0] and "a/a-3.png (cannot be read: No such file" in said[0]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """Write a .zip or .tar with these members, even if their names are invalid."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["pets.zip", "pets.tar.gz"])
def test_an_archive_gives_the_same_data_as_its_folder(
    kind: str, tmp_path: Path, load: Load
) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 2})
    files = {f"pets/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*.png")}
    files["pets/readme.txt"] = b"text"
    path = archive(tmp_path / kind, files)
    assert load(path).digest() == load(root).digest()
    assert load(path).source == str(path)
    unpacked = list((cache_folder() / "unpacked").iterdir())
    assert len(unpacked) == 1 and not list(unpacked[0].rglob("*.txt"))


def test_changed_unpacked_files_are_not_used(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 2, "test/b": 2})
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.png")}
    path = archive(tmp_path / "pets.zip", files | {"train/c/notes.txt": b"skipped"})
    want = load(path, size=32).digest()
    (unpacked,) = (cache_folder() / "unpacked").iterdir()

    def written() -> dict[str, bytes]:
        (folder,) = (cache_folder() / "unpacked").iterdir()
        return {
            str(p.relative_to(folder / "files")): p.read_bytes() for p in folder.glob("files/*/*/*")
        }

    whole, notes = written(), (unpacked / "notes.json").read_text()
    removed, cut = unpacked / "files/train/a/train-a-0.png", unpacked / "files/test/b/test-b-1.png"
    damages: list[Callable[[], object]] = [
        removed.unlink,
        lambda: cut.write_bytes(cut.read_bytes()[:99]),
        lambda: removed.replace(cut),
        (unpacked / "files/train/c").rmdir,
        (unpacked / "notes.json").unlink,
        lambda: (unpacked / "notes.json").write_text(""),
        lambda: (unpacked / "notes.json").write_text(notes[: len(notes) // 2]),
        lambda: (unpacked / "notes.json").write_text(notes.replace("notes.txt", "nodes.txt")),
        lambda: (unpacked / "notes.json").write_text("[" * 200_000),
        lambda: shutil.rmtree(unpacked / "files"),
    ]
    for damage in damages:
        damage()
        assert load(path, size=32).digest() == want
        assert written() == whole and (unpacked / "notes.json").read_text().endswith(
            notes.partition("\n")[2]
        )


def test_a_replaced_archive_is_unpacked_again(tmp_path: Path, load: Load) -> None:
    contents = [picture(tmp_path / "x.bmp").read_bytes() for _ in range(4)]
    folder = cache_folder() / "unpacked"
    digests = []
    for order in (contents, contents[::-1]):
        names = [f"{split}/{label}/1.bmp" for split in ("train", "test") for label in "ab"]
        path = archive(tmp_path / "pets.tar", dict(zip(names, order, strict=True)))
        os.utime(path, ns=(10**18, 10**18))
        digests.append(load(path, size=32).digest())
        (folder / "left by a killed process.part").mkdir()
    assert digests[0] != digests[1]
    assert len([*folder.glob("*-*")]) == 1  # one folder per archive path


def test_an_archive_may_hold_a_table(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"a": 4})
    files = {f"pets/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*.png")}
    rows = [f"a/a-{i}.png,{'xy'[i % 2]}" for i in range(4)]
    files["pets/list.csv"] = ("path,label\n" + "\n".join(rows)).encode()
    assert load(archive(tmp_path / "pets.zip", files)).classes == ("x", "y")
    for outside in ("../../../secret.png", str(tmp_path / "secret.png")):
        files["pets/list.csv"] = f"path,label\n{outside},x".encode()
        with pytest.raises(UserError, match=r"list\.csv names a file outside of it"):
            load(archive(tmp_path / f"{len(outside)}.zip", files))


def test_a_table_in_an_archive_that_lists_no_pictures_or_not_all_of_them(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"a": 4, "b": 4})
    files = {f"{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*.png")}
    whole = load(archive(tmp_path / "whole.zip", files)).digest()
    sizes = archive(tmp_path / "sizes.zip", files | {"sizes.csv": b"name,width\nx,3\n"})
    assert load(sizes).digest() == whole
    rows = [f"{label}/{label}-{i}.png,{label}" for label in "ab" for i in range(3)]
    listed = files | {"few.csv": ("path,label\n" + "\n".join(rows)).encode()}
    few = load(archive(tmp_path / "few.zip", listed))
    assert len(few.train) + len(few.test) == 6
    assert any("2 pictures in" in line and "because few.csv, the only" in line for line in said)
    flat = archive(tmp_path / "flat.zip", {"all/1.png": files["a/a-0.png"], "x.csv": b"id\n1\n"})
    with pytest.raises(UserError, match=r"x\.csv has no column path"):
        load(flat)


def test_other_files_are_refused(tmp_path: Path, load: Load) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is not a folder, an archive"):
        load(tmp_path / "cat.jpg")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
@pytest.mark.parametrize("name", ["../out.png", "/abs/out.png", "a/../../out.png", "C:/x.png"])
def test_archives_whose_paths_lead_outside_are_refused(
    name: str, kind: str, tmp_path: Path, load: Load
) -> None:
    path = archive(tmp_path / kind, {"a/1.png": b"x", name: b"x"})
    with pytest.raises(UserError, match="leads outside"):
        load(path)
    assert not list((cache_folder() / "unpacked").iterdir())


def test_links_in_archives_are_not_written(tmp_path: Path, load: Load) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a/link.png", tarfile.SYMTYPE), ("a/hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with pytest.raises(UserError, match="contains no pictures"):
        load(path)
    zipped = tmp_path / "x.zip"
    with zipfile.ZipFile(zipped, "w") as out:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="contains no pictures"):
        load(zipped)


def test_decompression_bombs_are_refused(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.unpack.FREE_BYTES", 2**16)
    path = archive(tmp_path / "bomb.zip", {"a/1.bmp": bytes(2**24)})
    with pytest.raises(UserError, match="unpacks to more than"):
        load(path)


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tgz"])
def test_damaged_archives_are_refused(kind: str, tmp_path: Path, load: Load) -> None:
    whole = archive(tmp_path / kind, {f"a/{i}.png": RNG.bytes(20_000) for i in range(9)})
    whole.write_bytes(whole.read_bytes()[:50_000])
    with pytest.raises(UserError, match="cut short or damaged"):
        load(whole)
    (tmp_path / kind).write_bytes(b"not an archive")
    with pytest.raises(UserError, match="cut short or damaged"):
        load(tmp_path / kind)


@pytest.mark.parametrize("suffix", ["tar", "tgz"])
@pytest.mark.parametrize("damage", ["header", "end", "checksum"])
def test_damage_that_tarfile_takes_for_the_end_is_noticed(
    damage: str, suffix: str, tmp_path: Path, load: Load
) -> None:
    plain = archive(tmp_path / "x.tar", {f"a/{i}.png": RNG.bytes(2_000) for i in range(9)})
    with tarfile.open(plain) as tar:
        last = tar.getmembers()[-1]
    content = bytearray(plain.read_bytes())
    if damage == "header":
        content[last.offset] ^= 1
    elif damage == "end":
        content = content[: last.offset]
    path, whole = tmp_path / f"damaged.{suffix}", bytes(content)
    if suffix == "tgz":
        whole = gzip.compress(whole)
    if damage == "checksum" and suffix == "tgz":
        whole = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]  # the CRC is before the length
    elif damage == "checksum":
        whole = whole[: last.offset + 300]
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"Cannot unpack .*CRC|cut short or damaged"):
        load(path)


def test_a_folder_that_a_tool_for_windows_packed_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name in ("cat/", "cat/1.png", "empty/"):
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            zipped.writestr(info, b"")
    unpacked = unpack_archive(path, tmp_path / "unpacked").folder
    assert sorted(map(str, (file.relative_to(unpacked) for file in unpacked.rglob("*")))) == [
        "cat",
        "cat/1.png",
        "empty",
    ]
    assert (unpacked / "empty").is_dir()


def test_an_undecodable_name_in_an_archive_is_refused(tmp_path: Path, load: Load) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/é.png", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xf8\xf8"))
    with pytest.raises(UserError, match=r"x.zip is cut short or damaged: 'utf-8' codec"):
        load(path)


def test_concurrent_calls_unpack_once(tmp_path: Path) -> None:
    files = {f"a/{i}.bmp": RNG.bytes(20_000) for i in range(50)}
    path = archive(tmp_path / "x.tar", files)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: unpack_archive(path, tmp_path / "unpacked"), range(8)))
    (unpacked,) = found
    there = (unpacked.folder / "a").iterdir()
    assert {f"a/{file.name}": file.read_bytes() for file in there} == files


def test_the_later_of_two_members_with_the_same_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for content in (b"old", b"new"):
            info = tarfile.TarInfo("a/1.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    unpacked = unpack_archive(path, tmp_path / "unpacked").folder
    assert (unpacked / "a/1.png").read_bytes() == b"new"


def test_an_archive_with_splits_at_its_top_is_not_cifar100(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 2})
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for name in ("train", "test"):
            tar.add(root / name, name)  # as `tar cf pets.tar train test` does
    assert load(tmp_path / "pets.tar").digest() == load(root).digest()


def test_errors_name_the_archive_and_not_the_cache_folder(tmp_path: Path, load: Load) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/x.zip contains no pictures"):
        load(archive(tmp_path / "x.zip", {"a/notes.csv": b"", "b/notes.csv": b""}))
