"""Where pictures come from: CIFAR-100, the bundled sample, Kaggle, a person's own files."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hundredfold.data import cache, cifar100, kaggle
from hundredfold.data.dataset import Dataset
from hundredfold.data.download import download
from hundredfold.data.folders import load_own
from hundredfold.data.sample import load_sample
from hundredfold.support.console import say
from hundredfold.support.errors import UnavailableError, UserError
from hundredfold.support.files import alone, cache_folder, expanded

DATA_VARIABLE = "HUNDREDFOLD_DATA"
"""Environment variable that says where CIFAR-100 is: a folder with it, or the archive."""


def load_data(
    source: str,
    tell: Callable[[str], None] = say,
    *,
    size: int = 0,
    strict: bool = False,
) -> Dataset:
    """Load the dataset that `--data` names.

    Args:
        source: auto, cifar100, sample, kaggle:OWNER/NAME, or a path: to CIFAR-100, to a folder or
            an archive with a folder of pictures for each class, or to a table of pictures.
        tell: takes a sentence for the user where something was decided for them.
        size: side in pixels of a person's own pictures; 0 to choose by them. CIFAR-100 stays as it
            is.
        strict: refuse a person's own pictures where some of them would be left out.

    Raises:
        UserError: no such data, or it is damaged.
        UnavailableError: it would have to be fetched, and cannot be.
    """
    if source == "auto":
        return _cifar100_or_sample(tell)
    path = find_source(source)
    if path is None:
        return READY[source]()
    if cifar100.holds(path):
        dataset = load_cifar100(path)
    else:
        dataset = load_own(path, tell, size=size, strict=strict)
    return replace(dataset, source=source) if source.startswith(kaggle.PREFIX) else dataset


def find_source(source: str) -> Path | None:
    """Return the path that `--data` names, fetched if need be; None for what needs no path.

    Raises:
        UserError, UnavailableError: as `load_data` does.
    """
    if source == "auto" or source in READY:
        return None
    path = kaggle.fetch(source) if source.startswith(kaggle.PREFIX) else expanded(source)
    if not os.path.exists(path):  # noqa: PTH110  # pathlib's raises where a name is too long
        raise UserError(f"There is no file or folder {source}.")
    return path


def needs_network(source: str) -> bool:
    """Return whether `load_data` would ask the network for what `--data` names."""
    if source in ("auto", "cifar100"):
        here = cache.exists() or cifar100.find(cache_folder())
        return not (os.environ.get(DATA_VARIABLE) or here)
    return source.startswith((kaggle.PREFIX, "//", "\\\\"))  # slashes: another machine's folder


def _cifar100_or_sample(tell: Callable[[str], None]) -> Dataset:
    try:
        return load_cifar100()
    except UnavailableError as error:
        tell(f"CIFAR-100 could not be had: {error}")
        tell(
            "Training on the small sample that comes with hundredfold instead: 2,500 of its "
            "50,000 pictures. The accuracy is NOT comparable with CIFAR-100's."
        )
        return load_sample()


def load_cifar100(path: str | Path | None = None) -> Dataset:
    """Load CIFAR-100: 50,000 + 10,000 pictures, 100 fine classes in 20 coarse superclasses.

    The first load checks the official files and keeps a converted copy in the user's cache folder;
    later loads take a fraction of a second.

    Args:
        path: the folder cifar-100-python, its .tar.gz, or a folder with either in it. None takes
            what the environment variable HUNDREDFOLD_DATA names, in the same way; where it is not
            set, what is in the user's cache folder, downloaded if need be.

    Raises:
        UserError: nothing there, or it is damaged.
        UnavailableError: the download is not possible.
    """
    with alone(cache_folder().with_suffix(".lock")):  # one process converts it, for all
        if path:
            found = _find(path, "")
            return replace(cache.load(found), source=str(found.resolve()))
        if named := os.environ.get(DATA_VARIABLE):
            return cache.load(_find(named, f" (from the environment variable {DATA_VARIABLE})"))
        return cache.read() or _from_cache_folder()


READY: Mapping[str, Callable[[], Dataset]] = {"cifar100": load_cifar100, "sample": load_sample}
"""Data that needs no path."""


def _find(path: str | Path, origin: str) -> Path:
    """Return the archive or folder of CIFAR-100 at a path that the user named."""
    where = expanded(path)
    found = cifar100.find(where)
    if found is None:
        state = "holds no CIFAR-100" if where.exists() else "does not exist"
        raise UserError(
            f"{where}{origin} {state}: wanted is {cifar100.ARCHIVE} or the folder "
            f"{cifar100.FOLDER} with the files train, test and meta."
        )
    return found


def _from_cache_folder() -> Dataset:
    """Read the archive or folder in the user's cache folder, downloaded if need be."""
    found = cifar100.find(cache_folder())
    if found:
        return cache.load(found)
    archive = cache_folder() / cifar100.ARCHIVE
    download(cifar100.URL, archive)
    try:
        return cache.load(archive)
    except UserError as error:  # a login page, say, or a mirror gone wrong: no later run trusts it
        raise UnavailableError(f"What {cifar100.URL} sent is not CIFAR-100: {error}") from error
    finally:
        archive.unlink(missing_ok=True)  # the converted copy is what later runs read
