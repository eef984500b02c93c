"""The cache of decoded pictures is used only if it is intact and of the same files."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image
from support.making import Load
from support.pets import picture, pictures

from hundredfold import Dataset, load_data
from hundredfold.data.pixel_cache import MAX_LISTS, PREFIX_DIGITS
from hundredfold.pictures.pixels import open_file
from hundredfold.support.files import cache_folder

SPLITS = {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of six pictures."""
    return pictures(tmp_path / "pets", SPLITS)


@pytest.fixture
def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call decoding fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("pictures are decoded again")

    return lambda: monkeypatch.setattr("hundredfold.data.pixel_cache.decode", refuse)


def cache_files() -> list[Path]:
    """Return the pixel files in the cache folder."""
    return sorted((cache_folder() / "pictures").glob("*.pixels"))


def assert_is_of(dataset: Dataset, root: Path) -> None:
    """Assert that every picture has the pixels of its file."""
    for split in dataset.splits.values():
        for image, name in zip(split.images, split.names, strict=True):
            with Image.open(root / name) as file:
                assert image.equal(torch.from_numpy(np.array(file)).permute(2, 0, 1)), name


@pytest.mark.parametrize("most", ["", "0"])
def test_a_problem_of_the_disk_is_not_remembered(
    most: str, root: Path, load: Load, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "train-a-0.png"

    def open_or_fail(path: Path) -> BufferedReader:
        if path.name == name:
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path)

    with monkeypatch.context() as patch:
        patch.setattr("hundredfold.data.decode.open_file", open_or_fail)
        assert len(load_data(str(root), said.append, cache=most).train) == 3
    assert "train-a-0.png (cannot be read: Input/output error)" in said[0]
    dataset = load_data(str(root), said.append, cache=most)
    assert len(dataset.train) == 4
    assert_is_of(dataset, root)
    assert load_data(str(root), cache=most).digest() == load(root).digest()


def test_replaced_files_are_read_again(root: Path, load: Load) -> None:
    first, second = (root / f"train/{label}/train-{label}-0.bmp" for label in "ab")
    for path in (first, second):  # of the same size and time
        picture(path)
        os.utime(path, ns=(10**18, 10**18))
    assert_is_of(load(root), root)
    aside = first.rename(root / "aside")
    second.rename(first)
    aside.rename(second)
    assert_is_of(load(root), root)
    first.write_bytes(second.read_bytes()[:-9] + b"exchanged")  # in place, then reset the time
    os.utime(first, ns=(10**18, 10**18))
    assert_is_of(load(root), root)


@pytest.mark.parametrize("most", [10**6, 1000], ids=["in memory", "mapped"])
def test_a_damaged_cache_file_is_written_again(
    most: int, root: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.pixel_cache.MAX_IN_MEMORY", most)
    want = load(root).digest()
    (file,) = cache_files()
    whole = file.read_bytes()
    half, pixels = len(whole) // 2, 6 * 3 * 32 * 32
    damaged = [
        b"",
        whole[:half],
        whole[:pixels],
        whole[:-1],
        whole + b"\0",
        bytes(half) + whole[half:],
        whole[:half] + bytes(len(whole) - half),
        bytes(len(whole)),
        whole.replace(b"PNG", b"GIF"),
    ]
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, pixels, 25), *rng.integers(pixels, len(whole), 25)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        file.unlink()  # a mapped file is in use
        file.write_bytes(content)
        assert load(root).digest() == want
        assert file.read_bytes() == whole


def test_several_lists_of_one_folder_stay_cached(
    root: Path, load: Load, forbid_decoding: Callable[[], None]
) -> None:
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    for i in range(2):
        rows = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in names]
        del rows[-1 - i]
        (root / f"{i}.csv").write_text("path,label,split\n" + "\n".join(rows))
    sources = [root, root / "0.csv", root / "1.csv"]
    digests = [load(source).digest() for source in sources]
    assert len({*digests}) == 3
    forbid_decoding()
    assert [load(source).digest() for source in sources] == digests


def test_each_fit_has_its_own_cache_file(
    tmp_path: Path, load: Load, forbid_decoding: Callable[[], None]
) -> None:
    root = pictures(tmp_path / "pets", SPLITS)
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.crop((0, 0, 32, 20)).save(path)
    files, digests = {}, {}
    for fit in ("crop", "squash", "pad"):
        before = {*cache_files()}
        digests[fit] = load(root, fit=fit).digest()
        (files[fit],) = {*cache_files()} - before
    assert len({*digests.values()}) == 3
    crop = files["crop"].read_bytes()
    files["pad"].write_bytes(crop)
    assert load(root, fit="pad").digest() == digests["pad"]  # not the pixels of crop
    forbid_decoding()
    assert {fit: load(root, fit=fit).digest() for fit in files} == digests


def test_the_lists_used_last_stay_cached(
    root: Path, load: Load, forbid_decoding: Callable[[], None]
) -> None:
    load(root)
    (first,) = cache_files()
    for i in range(MAX_LISTS + 1):
        picture(root / f"train/a/more-{i}.png")
        for j, file in enumerate(cache_files()):
            os.utime(file, ns=(j, j))
        os.utime(first)  # now the one used last
        load(root)
    assert len(cache_files()) == MAX_LISTS and first in cache_files()
    forbid_decoding()
    load(root)


def test_files_of_killed_processes_are_removed(root: Path, load: Load) -> None:
    load(root)
    folder = cache_folder() / "pictures"
    other, written = (name * PREFIX_DIGITS for name in "yz")
    prefix = cache_files()[0].name[:PREFIX_DIGITS]
    litter = [f"{prefix}-1.7.part", f"{prefix}-1.7.turn", f"{prefix}.pixels", f"{prefix}.json"]
    for name in (*litter, f"{other}-1.7.part", f"{written}-1.7.part"):
        (folder / name).write_text("left")
    picture(root / "train/a/more.png")
    with filelock.FileLock(folder / f"{written}.lock"):
        load(root)
    left = {path.name for path in folder.iterdir()} - {path.name for path in cache_files()}
    assert {name for name in left if not name.endswith(".lock")} == {f"{written}-1.7.part"}
    assert len(cache_files()) == 2


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_sets_load_without_room_in_the_cache(
    root: Path, load: Load, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = load(root).digest()
    cache_files()[0].unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # like a full disk
    try:
        assert load(root).digest() == want
        assert "in memory" in said[-1]
        monkeypatch.setattr("hundredfold.data.pixel_cache.MAX_IN_MEMORY", 1000)
        assert load(root).digest() == want
        reason = f"as {cache_folder() / 'pictures'} has no room: File too large"
        assert f"decoded whenever they are needed, {reason}. Each class" in said[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not cache_files()


SCRIPT = """
import sys
from hundredfold.data import decode
from hundredfold.data.load import load_data

decode.MIN_FOR_PROCESSES = 100
dataset = load_data(sys.argv[1], lambda _: None)
print("read", dataset.digest(), len(dataset.train.names))
"""


def test_a_script_without_a_main_guard_reads_many_pictures(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 90, "train/b": 90, "test/a": 1, "test/b": 1})
    (root / "train/a/bad.png").write_text("bad")
    (root / "train/b/\u00e9 \udcff.png").write_bytes((root / "train/b/train-b-0.png").read_bytes())
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(root)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stderr == ""
    (file,) = cache_files()
    written = file.stat().st_ino
    want = load(root)
    assert cache_files()[0].stat().st_ino == written  # the file that the script's processes wrote
    assert done.stdout.split() == ["read", want.digest(), str(len(want.train))]
    file.unlink()
    again = load(root)  # in threads
    assert again.digest() == want.digest() and again.train.names == want.train.names
