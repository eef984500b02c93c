"""The fast form of CIFAR-100: one safetensors file in the user's cache folder.

It is trusted for two reasons that are both checked at each load: its content has the official
data's digest, and the source at hand is one that was verified before and has not changed since.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hundredfold.data import cifar100
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.download import partial_path
from hundredfold.support.files import cache_folder, remove_unfinished, stamp, write_atomic

DATA = "cifar100.safetensors"
VERIFIED = "verified.json"


def load(source: Path) -> Dataset:
    """Load CIFAR-100 from the cache where `source` was verified before, else from `source`.

    One process at a time: the caller holds the lock of the cache folder.

    Raises:
        UserError: the source is damaged or not the official one.
    """
    state = _stamp(source)
    if state in _verified():
        cached = read()
        if cached is not None:
            return cached
    dataset = cifar100.read(source)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        remove_unfinished(cache_folder())  # of processes that were killed
        _write(dataset)
        partial_path(cache_folder() / cifar100.ARCHIVE).unlink(missing_ok=True)  # not needed now
        write_atomic(cache_folder() / VERIFIED, json.dumps([*_verified(), state]).encode())
    except OSError:
        pass  # a cache that cannot be written only costs time
    return dataset


def _stamp(source: Path) -> str:
    """Return what changes when the source's files do."""
    files = [source] if source.is_file() else [source / name for name in cifar100.MEMBERS]
    return repr((str(source.resolve()), [stamp(file) for file in files]))


def _verified() -> list[str]:
    try:
        stamps = json.loads((cache_folder() / VERIFIED).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return stamps if isinstance(stamps, list) else []


def _write(dataset: Dataset) -> None:
    tensors = {}
    for name in ("train", "test"):
        split: Split = getattr(dataset, name)
        tensors[f"{name}.images"] = split.images.contiguous()
        tensors[f"{name}.labels"] = split.labels
    names = {key: getattr(dataset, key) for key in ("classes", "superclasses", "parents")}
    write_atomic(cache_folder() / DATA, save(tensors, metadata={"names": json.dumps(names)}))


def exists() -> bool:
    """Return whether there is a cached dataset, be it damaged."""
    return (cache_folder() / DATA).exists()


def read() -> Dataset | None:
    """Return the cached dataset, or None where it is missing or not the official data."""
    try:
        with safe_open(cache_folder() / DATA, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            names = json.loads((file.metadata() or {})["names"])
        dataset = Dataset(
            source="cifar100",
            train=Split(tensors["train.images"], tensors["train.labels"]),
            test=Split(tensors["test.images"], tensors["test.labels"]),
            classes=tuple(names["classes"]),
            superclasses=tuple(names["superclasses"]),
            parents=tuple(names["parents"]),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return dataset if dataset.digest() == cifar100.DIGEST else None
