"""Where pictures come from: CIFAR-100, the bundled sample, Kaggle."""

import os
from collections.abc import Callable
from pathlib import Path

from hundredfold.data import cache, cifar100, kaggle
from hundredfold.data.dataset import Dataset, Split, hold_out
from hundredfold.data.download import download
from hundredfold.data.sample import load_sample
from hundredfold.errors import UnavailableError, UserError

__all__ = ["Dataset", "Split", "hold_out", "load_cifar100", "load_data", "load_sample"]

DATA_VARIABLE = "HUNDREDFOLD_DATA"
"""Environment variable that names a folder with CIFAR-100 in it."""


def load_data(source: str, tell: Callable[[str], None] = print) -> Dataset:
    """Load the dataset that `--data` names.

    Args:
        source: auto, cifar100, sample, kaggle:OWNER/NAME, or a path to CIFAR-100.
        tell: takes a sentence for the user where something was decided for them.

    Raises:
        UserError: no such data, or it is damaged.
        UnavailableError: it would have to be fetched, and cannot be.
    """
    if source == "sample":
        return load_sample()
    if source == "cifar100":
        return load_cifar100()
    if source == "auto":
        try:
            return load_cifar100()
        except UnavailableError as error:
            tell(
                f"CIFAR-100 could not be had: {error}\n"
                "Training on the small sample that comes with hundredfold instead: 2,500 of its "
                "50,000 pictures. The accuracy is NOT comparable with CIFAR-100's."
            )
            return load_sample()
    path = kaggle.fetch(source) if source.startswith(kaggle.PREFIX) else Path(source).expanduser()
    return load_cifar100(path)


def load_cifar100(path: str | Path | None = None) -> Dataset:
    """Load CIFAR-100: 50,000 + 10,000 pictures, 100 fine classes in 20 coarse superclasses.

    The first load checks the official files and keeps a converted copy in the user's cache folder;
    later loads take a fraction of a second.

    Args:
        path: the folder cifar-100-python, its .tar.gz, or a folder with either in it. None looks in
            the folder that HUNDREDFOLD_DATA names, then in the user's cache folder, then downloads
            it there.

    Raises:
        UserError: nothing there, or it is damaged.
        UnavailableError: the download is not possible.
    """
    named = path or os.environ.get(DATA_VARIABLE)
    if named:
        where = Path(named).expanduser()
        found = cifar100.find(where)
        if found is None:
            origin = "" if path else f" (from the environment variable {DATA_VARIABLE})"
            state = "holds no CIFAR-100" if where.exists() else "does not exist"
            raise UserError(
                f"{where}{origin} {state}: wanted is {cifar100.ARCHIVE} or the folder "
                f"{cifar100.FOLDER} with the files train, test and meta."
            )
        return cache.load(found)
    cached = cache.read()
    if cached is not None:
        return cached
    found = cifar100.find(cache.folder())
    if found is None:
        found = cache.folder() / cifar100.ARCHIVE
        download(cifar100.URL, found)
    return cache.load(found)
