"""The official CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features", 2009).

Its three pickles are read only if they match their published MD5 checksums. They are read straight
from the archive: nothing is unpacked to disk, so paths in the archive do no harm. The parquet files
of the Hugging Face Hub have the same pictures and labels, which is verified by `DIGEST`.
"""

import hashlib
import lzma
import pickle
import tarfile
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hundredfold.data import parquet
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.decompress import SizeLimit, tar_members
from hundredfold.pictures.load import load_picture
from hundredfold.support.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE = "cifar-100-python.tar.gz"
FOLDER = "cifar-100-python"
MEMBERS = {  # name: (published MD5, size in bytes)
    "train": ("16019d7e3df5f24257cddd939b257f8d", 155_249_918),
    "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", 31_049_707),
    "meta": ("7973b15100ade9c7d40fb424638fde48", 1_473),
}
TABLES = {"train": 50_000, "test": 10_000}
"""Number of rows of each parquet file."""
PICTURE = "img"
MISSPELT = {"cra": "crab"}
"""Official name of a class that the Hub's files may misspell."""
COLUMNS = {"fine_label": 100, "coarse_label": 20}
"""Number of classes of each column with labels."""
DIGEST = "c24ac4198259bc370e0a54547db3cec219bb0ffdd972bc2b5bb6b039ed1fc411"
"""`Dataset.digest()` of the official data, with which the converted copy is checked."""
MAX_BYTES = 2**28
"""Maximum number of bytes that the archive may unpack to."""
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""Exceptions that a damaged archive raises."""
PEEKED = 10
"""Number of members that are looked at to recognise an archive."""
ADVICE = f"Delete it and download the official archive again: {URL}"


def find_official(path: Path) -> Path | None:
    """Return the archive or the folder of pickles or tables at or in `path`; None if none."""
    candidates = [path, path / FOLDER, path / ARCHIVE]
    for candidate in candidates:
        if candidate.is_file() and candidate.name.endswith((".tar.gz", ".tgz", ".tar")):
            return candidate
        if all((candidate / name).is_file() for name in MEMBERS):
            return candidate
    return path if tables(path) else None


def tables(path: Path) -> dict[str, Path]:
    """Return the parquet files of CIFAR-100 in a folder, by split, as the Hub has them.

    They are recognised by their columns, classes and numbers of rows.
    """
    found, folders = {}, (path, path / "cifar100", path / "data")
    for name, rows in TABLES.items():
        for file in (file for folder in folders for file in folder.glob(f"{name}-*.parquet")):
            try:
                columns = {key: len(names) for key, names in parquet.class_names(file).items()}
                same = columns == COLUMNS and parquet.count_rows(file) == rows
                same = same and parquet.holds_pictures(file, (PICTURE,))
            except UserError:  # damaged, or there is no package to read it
                continue
            if same:
                found[name] = file
    return found if len(found) == len(TABLES) else {}


def source_files(source: Path) -> list[Path]:
    """Return the files that `read_official` reads from what `find_official` returned."""
    if source.is_file():
        return [source]
    return [*tables(source).values()] or [source / name for name in MEMBERS]


def is_at(path: Path) -> bool:
    """Return whether a file or folder is meant to be CIFAR-100.

    An archive is if it has the official name, or one of the three pickles among its first members.
    """
    found = find_official(path)
    if found is None or found.is_dir() or found.name == ARCHIVE:
        return found is not None
    try:
        peeked = islice(tar_members(found, SizeLimit(found, MAX_BYTES)), PEEKED)
        files = [member.name for _, member in peeked if member.isreg()]
    except (UserError, *DAMAGED, OSError):
        return False
    return any(name.removeprefix(f"{FOLDER}/") in MEMBERS for name in files)


def read_official(path: Path) -> Dataset:
    """Read CIFAR-100 from its archive, or its folder of pickles or tables.

    Returns:
        50,000 training and 10,000 test pictures of (3, 32, 32), 100 classes in 20 superclasses.

    Raises:
        UserError: a file is missing, cannot be read, or has other content than the official one.
    """
    if path.is_dir() and (files := tables(path)):
        return _from_tables(path, files)
    try:
        members = _from_folder(path) if path.is_dir() else _from_archive(path)
    except DAMAGED as error:
        raise UserError(f"{path} is cut short or damaged ({error}). {ADVICE}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    for name, (md5, _) in MEMBERS.items():
        if name not in members:
            raise UserError(f"{path} lacks the file {FOLDER}/{name}. {ADVICE}")
        found = hashlib.md5(members[name], usedforsecurity=False).hexdigest()
        if found != md5:
            raise UserError(
                f"{name} in {path} is not the official file: its MD5 is {found}, not {md5}. "
                f"{ADVICE}"
            )
    # Unpickling is safe only now that every byte is known to be official.
    raw = {name: pickle.loads(members[name], encoding="bytes") for name in MEMBERS}  # noqa: S301
    return _decode(raw)


def _from_folder(path: Path) -> dict[str, bytes]:
    blobs = {}
    for name, (_, size) in MEMBERS.items():
        with (path / name).open("rb") as file:
            blobs[name] = file.read(size + 1)  # one more byte shows that a file is too long
    return blobs


def _from_archive(path: Path) -> dict[str, bytes]:
    """Return the three pickles by name, each cut one byte after its official size."""
    blobs = {}
    for archive, member in tar_members(path, SizeLimit(path, MAX_BYTES)):
        name = member.name.removeprefix(f"{FOLDER}/")
        file = archive.extractfile(member) if name in MEMBERS and member.isreg() else None
        if file is not None:
            blobs[name] = file.read(MEMBERS[name][1] + 1)
        if len(blobs) == len(MEMBERS):
            break
    return blobs


def _from_tables(path: Path, files: dict[str, Path]) -> Dataset:
    """Return the pictures of parquet files, which are the official ones.

    Raises:
        UserError: they are not.
    """
    names = parquet.class_names(files["train"])
    fine, coarse = (tuple(names[key].values()) for key in COLUMNS)
    number = {name: i for i, name in enumerate(fine)}
    splits, above = {}, dict.fromkeys(fine, "")
    for name, file in files.items():
        images, labels = [], []
        for row in parquet.records(file):
            images.append(load_picture(parquet.picture_bytes(row[PICTURE]), 32))
            labels.append(number.get(row["fine_label"], -1))
            above[row["fine_label"]] = row["coarse_label"]
        splits[name] = Split(torch.stack(images), torch.tensor(labels))
    parents = tuple(coarse.index(above[name]) if above[name] in coarse else -1 for name in fine)
    classes = tuple(MISSPELT.get(name, name) for name in fine)
    dataset = Dataset("cifar100", splits["train"], splits["test"], classes, coarse, parents)
    if dataset.digest() != DIGEST:
        raise UserError(
            f"{path} has the columns of CIFAR-100, but not its pictures and labels. {ADVICE}"
        )
    return dataset


def _decode(raw: dict[str, Any]) -> Dataset:
    """Turn the three unpickled dicts into a dataset; the labels give the class hierarchy."""
    fine, coarse = (torch.tensor(raw["train"][key]) for key in (b"fine_labels", b"coarse_labels"))
    parents = torch.zeros(100, dtype=torch.int64)
    parents[fine] = coarse
    names = {
        key: tuple(name.decode() for name in raw["meta"][key])
        for key in (b"fine_label_names", b"coarse_label_names")
    }
    return Dataset(
        source="cifar100",
        train=_split(raw["train"]),
        test=_split(raw["test"]),
        classes=names[b"fine_label_names"],
        superclasses=names[b"coarse_label_names"],
        parents=tuple(parents.tolist()),
    )


def _split(raw: dict[bytes, Any]) -> Split:
    images = torch.from_numpy(raw[b"data"]).view(-1, 3, 32, 32)
    return Split(images, torch.tensor(raw[b"fine_labels"]))
