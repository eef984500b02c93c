"""The official CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features", 2009).

Its three pickles are read only after their published MD5 matches, straight from the archive:
nothing is unpacked to disk, so no path in an archive matters.
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

from hundredfold.data.counted import Budget, tar_members
from hundredfold.data.dataset import Dataset, Split
from hundredfold.support.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE = "cifar-100-python.tar.gz"
FOLDER = "cifar-100-python"
MEMBERS = {  # name: (published MD5, bytes)
    "train": ("16019d7e3df5f24257cddd939b257f8d", 155_249_918),
    "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", 31_049_707),
    "meta": ("7973b15100ade9c7d40fb424638fde48", 1_473),
}
DIGEST = "c24ac4198259bc370e0a54547db3cec219bb0ffdd972bc2b5bb6b039ed1fc411"
"""`Dataset.digest()` of the official data: holds the converted form to it as well."""
MOST_BYTES = 2**28
"""That the archive unpacks to, at most."""
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""What is raised where an archive is damaged."""
PEEKED = 10
"""Members of an archive that are looked at to know it."""
ADVICE = f"Delete it and get the official one again: {URL}"


def find(path: Path) -> Path | None:
    """Return the archive or the folder of pickles at `path` or directly inside it, if any."""
    candidates = [path, path / FOLDER, path / ARCHIVE]
    for candidate in candidates:
        if candidate.is_file() and candidate.name.endswith((".tar.gz", ".tgz", ".tar")):
            return candidate
        if all((candidate / name).is_file() for name in MEMBERS):
            return candidate
    return None


def holds(path: Path) -> bool:
    """Return whether a file or folder that a user named is meant to be CIFAR-100.

    So is an archive that has one of the three members among its first ones, or the official name.
    """
    found = find(path)
    if found is None or found.is_dir() or found.name == ARCHIVE:
        return found is not None
    try:
        peeked = islice(tar_members(found, Budget(found, MOST_BYTES)), PEEKED)
        files = [member.name for _, member in peeked if member.isreg()]
    except (UserError, *DAMAGED, OSError):
        return False
    return any(name.removeprefix(f"{FOLDER}/") in MEMBERS for name in files)


def read(path: Path) -> Dataset:
    """Read CIFAR-100 from its archive or its folder of pickles.

    Returns:
        50,000 training and 10,000 test pictures of (3, 32, 32), 100 classes in 20 superclasses.

    Raises:
        UserError: a member is missing, or is not the official one, or cannot be read.
    """
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
                f"{name} in {path} is not the official one: its MD5 is {found}, not {md5}. {ADVICE}"
            )
    # Only now, each byte being the official one, is it safe to unpickle.
    raw = {name: pickle.loads(members[name], encoding="bytes") for name in MEMBERS}  # noqa: S301
    return _decode(raw)


def _from_folder(path: Path) -> dict[str, bytes]:
    blobs = {}
    for name, (_, size) in MEMBERS.items():
        with (path / name).open("rb") as file:
            blobs[name] = file.read(size + 1)  # never more than the official file, plus proof
    return blobs


def _from_archive(path: Path) -> dict[str, bytes]:
    """Return the three members by name, none larger than the official one by more than a byte."""
    blobs = {}
    for archive, member in tar_members(path, Budget(path, MOST_BYTES)):
        name = member.name.removeprefix(f"{FOLDER}/")
        file = archive.extractfile(member) if name in MEMBERS and member.isreg() else None
        if file is not None:
            blobs[name] = file.read(MEMBERS[name][1] + 1)
        if len(blobs) == len(MEMBERS):
            break
    return blobs


def _decode(raw: dict[str, Any]) -> Dataset:
    """Turn the three unpickled dicts into a dataset; the hierarchy is read off the labels."""
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
