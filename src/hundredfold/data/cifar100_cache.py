"""Cache CIFAR-100 as one safetensors file in the user's cache folder, which loads fast.

Each load checks two things: that the cached content has the digest of the official data, and that
the source was verified before and has not changed since.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hundredfold.data import cifar100
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.download import partial_path
from hundredfold.support.files import cache_folder, file_stamp, remove_unfinished, write_atomic

DATA = "cifar100.safetensors"
VERIFIED = "verified.json"


def load_cached(source: Path) -> Dataset:
    """Load CIFAR-100 from the cache if `source` was verified before, else from `source`.

    The caller must hold the lock of the cache folder.

    Raises:
        UserError: the source is damaged or is not the official data.
    """
    state = _source_state(source)
    if state in _verified_sources():
        cached = read_cached()
        if cached is not None:
            return cached
    dataset = cifar100.read_official(source)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        remove_unfinished(cache_folder())  # left by killed processes
        _write(dataset)
        partial_path(cache_folder() / cifar100.ARCHIVE).unlink(missing_ok=True)  # not needed now
        verified = json.dumps([*_verified_sources(), state])
        write_atomic(cache_folder() / VERIFIED, verified.encode())
    except OSError:
        pass  # without a cache, loading only takes longer
    return dataset


def _source_state(source: Path) -> str:
    """Return a text that changes when the files of the source do."""
    stamps = [file_stamp(file) for file in cifar100.source_files(source)]
    return repr((str(source.resolve()), stamps))


def _verified_sources() -> list[str]:
    try:
        states = json.loads((cache_folder() / VERIFIED).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return states if isinstance(states, list) else []


def _write(dataset: Dataset) -> None:
    tensors = {}
    for name in ("train", "test"):
        split: Split = getattr(dataset, name)
        tensors[f"{name}.images"] = split.images.contiguous()
        tensors[f"{name}.labels"] = split.labels
    names = {key: getattr(dataset, key) for key in ("classes", "superclasses", "parents")}
    write_atomic(cache_folder() / DATA, save(tensors, metadata={"names": json.dumps(names)}))


def exists() -> bool:
    """Return whether there is a cached dataset, even a damaged one."""
    return (cache_folder() / DATA).exists()


def read_cached() -> Dataset | None:
    """Return the cached dataset, or None if it is missing or is not the official data."""
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
