"""CIFAR-100, its cache, the sample, splits, and damaged or malicious archives."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.making import make_split

from hundredfold import (
    Dataset,
    UserError,
    load_cifar100,
    load_data,
    load_sample,
)
from hundredfold.data import cifar100, cifar100_cache
from hundredfold.data.dataset import hold_out
from hundredfold.data.load import DATA_VARIABLE
from hundredfold.support.files import cache_folder


def test_cifar100_is_complete_and_official(cifar: Dataset) -> None:
    assert cifar.train.images.shape == (50_000, 3, 32, 32)
    assert cifar.test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(cifar.train.labels).tolist() == [500] * 100
    assert torch.bincount(cifar.test.labels).tolist() == [100] * 100
    assert torch.bincount(torch.tensor(cifar.parents)).tolist() == [5] * 20
    assert cifar.digest() == cifar100.DIGEST


def test_cifar100_has_the_published_hierarchy(cifar: Dataset) -> None:
    people = {
        cifar.classes[i] for i in range(100) if cifar.superclasses[cifar.parents[i]] == "people"
    }
    assert people == {"baby", "boy", "girl", "man", "woman"}


def test_cifar100_equals_its_pickles(cifar: Dataset, official: Path) -> None:
    with tarfile.open(official) as archive:
        file = archive.extractfile("cifar-100-python/test")
        assert file is not None
        raw = pickle.load(file, encoding="bytes")
    np.testing.assert_array_equal(cifar.test.images.reshape(10_000, -1), raw[b"data"])
    assert cifar.test.labels.tolist() == raw[b"fine_labels"]
    coarse = cifar.with_labels("coarse")
    assert coarse.test.labels.tolist() == raw[b"coarse_labels"]
    assert coarse.classes == coarse.superclasses == cifar.superclasses
    assert coarse.parents == tuple(range(20))


def extract(official: Path, target: Path) -> Path:
    """Unpack the official archive."""
    with tarfile.open(official) as archive:
        archive.extractall(target, filter="data")
    return target / cifar100.FOLDER


def test_folder_cache_and_environment_variable_give_the_same_data(
    cifar: Dataset, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = extract(official, tmp_path)
    cache_folder().mkdir(parents=True)
    (cache_folder() / f"{cifar100.ARCHIVE}.part").write_text("a download that was cut")
    assert load_cifar100(folder).digest() == cifar100.DIGEST
    assert {file.name for file in cache_folder().iterdir()} == {
        cifar100_cache.DATA,
        cifar100_cache.VERIFIED,
    }
    with monkeypatch.context() as patch:  # from here on, reading the source again would fail
        patch.setattr(cifar100, "read_official", None)
        assert load_cifar100(tmp_path).digest() == cifar100.DIGEST
        assert load_cifar100().digest() == cifar100.DIGEST  # the converted copy
        patch.setenv(DATA_VARIABLE, str(folder))
        assert load_data("auto").source == "cifar100"
        assert load_data(str(tmp_path)).source == str(folder)
    monkeypatch.setenv(DATA_VARIABLE, str(folder))

    # A changed source is read again and refused. A damaged copy in the cache is not used.
    with (folder / "test").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"!")
    with pytest.raises(UserError, match=r"test in .* is not the official file: its MD5 is"):
        load_data("cifar100")
    monkeypatch.delenv(DATA_VARIABLE)
    copy = cache_folder() / cifar100_cache.DATA
    blob = bytearray(copy.read_bytes())
    blob[-1] ^= 1
    copy.write_bytes(blob)
    assert cifar100_cache.read_cached() is None
    (cache_folder() / cifar100_cache.VERIFIED).write_text("[" * 200_000)
    monkeypatch.setattr(cifar100, "read_official", lambda _: cifar)
    assert load_cifar100(folder).digest() == cifar100.DIGEST


def test_the_error_names_a_truncated_archive(official: Path, tmp_path: Path) -> None:
    cut = tmp_path / cifar100.ARCHIVE
    with official.open("rb") as file:
        cut.write_bytes(file.read(10_000_000))
    with pytest.raises(UserError, match=r"cut short or damaged.*Delete it"):
        load_cifar100(cut)
    assert not (cache_folder() / cifar100_cache.DATA).exists()


def make_archive(
    path: Path, members: dict[str, bytes], *, links: dict[str, str] | None = None
) -> Path:
    """Write a .tar.gz of files and symbolic links, any names allowed."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return path


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_an_unofficial_pickle_is_never_loaded(tmp_path: Path) -> None:
    blob = pickle.dumps(Bomb(tmp_path / "boom"))
    members = {f"cifar-100-python/{name}": blob for name in cifar100.MEMBERS}
    path = make_archive(tmp_path / "x.tar.gz", members)
    with pytest.raises(UserError, match="not the official file"):
        load_cifar100(path)
    assert not (tmp_path / "boom").exists()


def test_no_member_of_the_archive_is_written_to_disk(tmp_path: Path) -> None:
    members = {"../escaped": b"x", "/absolute": b"x", "cifar-100-python/train": b"x"}
    links = {"cifar-100-python/meta": "/etc/passwd"}
    path = make_archive(tmp_path / "x.tar.gz", members, links=links)
    with pytest.raises(UserError, match=r"not the official file|lacks the file"):
        load_cifar100(path)
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["hundredfold.lock", "x.tar.gz"]


def test_the_error_names_a_missing_member(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "x.tar.gz", {"cifar-100-python/other": b"x"})
    with pytest.raises(UserError, match="lacks the file cifar-100-python/train"):
        load_cifar100(path)


def test_the_error_names_a_file_that_is_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match="cut short or damaged"):
        load_cifar100(path)


def test_missing_data_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"There is no file or folder .*nowhere"):
        load_data(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere does not exist\. Pass the path of cifar-100"):
        load_cifar100(tmp_path / "nowhere")
    with pytest.raises(UserError, match="contains no pictures"):
        load_data(str(tmp_path))
    with pytest.raises(UserError, match="does not contain CIFAR-100"):
        load_cifar100(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="from the environment variable HUNDREDFOLD_DATA"):
        load_data("auto")


def test_data_loads_without_a_writable_cache(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_cifar100(official).digest() == cifar100.DIGEST


def test_the_sample_is_balanced_and_small() -> None:
    sample = load_sample()
    assert torch.bincount(sample.train.labels).tolist() == [25] * 100
    assert torch.bincount(sample.test.labels).tolist() == [5] * 100
    assert len(sample.train.images.flatten(1).unique(dim=0)) == 2500
    root = Path(cifar100.__file__).parent / "sample"
    assert sum(file.stat().st_size for file in root.iterdir()) < 8e6


def test_the_pixels_of_the_sample_are_official(cifar: Dataset) -> None:
    sample = load_sample()
    root = Path(cifar100.__file__).parent / "sample"
    names = json.loads((root / "sample.json").read_text())
    for split in ("train", "test"):
        ours, theirs = getattr(sample, split), getattr(cifar, split)
        index = torch.tensor(names[f"{split}_index"])
        assert ours.images.equal(theirs.images[index])
        assert ours.labels.equal(theirs.labels[index])
    assert (sample.classes, sample.superclasses, sample.parents) == (
        cifar.classes,
        cifar.superclasses,
        cifar.parents,
    )


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 9),
)
def test_a_held_out_split_is_stratified(counts: list[int], share: float, seed: int) -> None:
    split = make_split(0, 1)
    split = type(split)(
        torch.arange(sum(counts)).view(-1, 1, 1, 1),
        torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
    )
    rest, held = hold_out(split, share, seed)
    both = torch.cat([rest.images, held.images]).flatten()
    assert both.sort().values.equal(torch.arange(sum(counts)))
    for label, count in enumerate(counts):
        want = min(round(share * count), count - 1)
        assert int((held.labels == label).sum()) == want
    again = hold_out(split, share, seed)[1]
    assert again.images.equal(held.images)


def test_a_dataset_without_superclasses_has_no_coarse_labels(tiny: Dataset) -> None:
    flat = Dataset(source="flat", train=tiny.train, test=tiny.test, classes=tiny.classes)
    assert flat.with_labels("fine") is flat
    with pytest.raises(UserError, match="needs superclasses, and flat has none"):
        flat.with_labels("coarse")


def test_the_digest_depends_on_pictures_labels_and_names(tiny: Dataset) -> None:
    def change(**fields: Any) -> str:
        return Dataset(**{**vars(tiny), **fields}).digest()

    images = tiny.train.images.clone()
    images[3, 1, 5, 7] ^= 1
    digests = {
        tiny.digest(),
        change(train=type(tiny.train)(images, tiny.train.labels)),
        change(train=type(tiny.train)(tiny.train.images, tiny.train.labels.flip(0))),
        change(classes=tuple("abcdeg")),
    }
    assert len(digests) == 4
    half = tiny.train[::2]  # not contiguous in memory
    dense = type(half)(half.images.contiguous(), half.labels.contiguous())
    assert change(train=half) == change(train=dense)
    assert change(source="moved") == tiny.digest()
    assert len(tiny.digest()) == len(hashlib.sha256().hexdigest())
