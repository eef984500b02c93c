"""Load the dataset that `--data` names: CIFAR-100, the sample, one to download, or a path."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hundredfold.config import Config
from hundredfold.data import addresses, cifar100, cifar100_cache, huggingface, kaggle
from hundredfold.data.dataset import Dataset
from hundredfold.data.download import download
from hundredfold.data.folders import load_folder
from hundredfold.data.sample import load_sample
from hundredfold.data.shards import find_shards
from hundredfold.pictures.pixels import Fit
from hundredfold.support.console import say
from hundredfold.support.errors import UnavailableError, UserError
from hundredfold.support.files import cache_folder, expanded, process_lock

DATA_VARIABLE = "HUNDREDFOLD_DATA"
"""Environment variable with the path of CIFAR-100: the archive, or a folder that contains it."""

DOWNLOADED = (kaggle.PREFIX, huggingface.PREFIX)
"""Starts of the values of `--data` that name a dataset to download."""


def load_data(
    source: str,
    tell: Callable[[str], None] = say,
    *,
    size: int = 0,
    fit: Fit = "crop",
    strict: bool = False,
    cache: str = "",
) -> Dataset:
    """Load the dataset that `--data` names.

    Args:
        source: auto, cifar100, sample, kaggle:OWNER/NAME, hf:OWNER/NAME, or a path or an address:
            of CIFAR-100, of a folder or an archive with a folder of pictures for each class, of a
            table of pictures, or of shards.
        tell: function that shows the user a sentence about a decision that was made for them.
        size: side length in pixels of your own pictures; 0 to choose it by the pictures. CIFAR-100
            keeps its size.
        fit: how your own pictures that are not square become squares (`pixels.Fit`).
        strict: raise an error instead of leaving any of your own pictures out.
        cache: most disk space for decoded pictures of your own (`Config.cache`).

    Raises:
        UserError: there is no such data, or it is damaged.
        UnavailableError: the data must be downloaded, which is not possible.

    Examples:
        >>> load_data("sample").classes[:2]
        ('apple', 'aquarium_fish')
    """
    if source == "auto":
        return _cifar100_or_sample(tell)
    path = find_source(source)
    if path is None:
        return BUILT_IN[source]()
    if cifar100.is_at(path):
        dataset = load_cifar100(path)
    else:
        dataset = load_folder(path, tell, size=size, fit=fit, strict=strict, cache=cache)
    return replace(dataset, source=source) if _is_downloaded(source) else dataset


def load_to_train(config: Config, tell: Callable[[str], None] = say) -> tuple[Config, Dataset]:
    """Load the dataset that a configuration names.

    Returns:
        The configuration with the fit of the dataset, and the dataset. CIFAR-100 and the sample are
        square: their fit is `crop`, whatever the configuration says.

    Raises:
        UserError, UnavailableError: as `load_data` does.
    """
    fit: Fit = "crop" if config.fit == "auto" else config.fit
    dataset = load_data(
        config.data, tell, size=config.size, fit=fit, strict=config.strict, cache=config.cache
    )
    return replace(config, fit=dataset.fit), dataset


def find_source(source: str) -> Path | None:
    """Return the path that `--data` names, downloaded if necessary; None for data without a path.

    Raises:
        UserError, UnavailableError: as `load_data` does.
    """
    if source == "auto" or source in BUILT_IN:
        return None
    if source.startswith(kaggle.PREFIX):
        path = kaggle.download_dataset(source)
    elif source.startswith(huggingface.PREFIX):
        path = huggingface.download_dataset(source)
    elif addresses.is_address(source):
        path = addresses.download_address(source)
    else:
        path = expanded(source)
    exists = os.path.exists(path)  # noqa: PTH110  # pathlib's raises if a name is too long
    if not exists and not ("{" in source and find_shards(path)):
        raise UserError(f"There is no file or folder {source}. Check the path or name other data.")
    return path


def _is_downloaded(source: str) -> bool:
    return source.startswith(DOWNLOADED) or addresses.is_address(source)


def needs_network(source: str) -> bool:
    """Return whether `load_data` would use the network for the data that `--data` names."""
    if source in ("auto", "cifar100"):
        local = cifar100_cache.exists() or cifar100.find_official(cache_folder())
        return not (os.environ.get(DATA_VARIABLE) or local)
    # Two slashes are the start of a network folder.
    return _is_downloaded(source) or source.startswith(("//", "\\\\"))


def _cifar100_or_sample(tell: Callable[[str], None]) -> Dataset:
    try:
        return load_cifar100()
    except UnavailableError as error:
        tell(f"CIFAR-100 is not available: {error}")
        tell(
            "The small sample that comes with hundredfold is used instead: 2,500 of the 50,000 "
            "training pictures. An accuracy on it is NOT comparable with one on CIFAR-100."
        )
        return load_sample()


def load_cifar100(path: str | Path | None = None) -> Dataset:
    """Load CIFAR-100: 50,000 + 10,000 pictures, 100 classes in 20 superclasses.

    The first call checks the official files and saves a converted copy in the user's cache folder.
    Later calls take a fraction of a second.

    Args:
        path: the folder cifar-100-python, its .tar.gz, or a folder that contains either. None
            takes the path in the environment variable HUNDREDFOLD_DATA, or if that is not set, the
            copy in the user's cache folder, which is downloaded if necessary.

    Raises:
        UserError: there is no CIFAR-100 at the path, or it is damaged.
        UnavailableError: the download is not possible.

    Examples:
        >>> dataset = load_cifar100("data/cifar-100-python.tar.gz")  # doctest: +SKIP
        >>> len(dataset.train)  # doctest: +SKIP
        50000
    """
    with process_lock(cache_folder().with_suffix(".lock")):  # only one process converts the data
        if path:
            found = _find(path, "")
            return replace(cifar100_cache.load_cached(found), source=str(found.resolve()))
        if variable := os.environ.get(DATA_VARIABLE):
            origin = f" (from the environment variable {DATA_VARIABLE})"
            return cifar100_cache.load_cached(_find(variable, origin))
        return cifar100_cache.read_cached() or _from_cache_folder()


BUILT_IN: Mapping[str, Callable[[], Dataset]] = {"cifar100": load_cifar100, "sample": load_sample}
"""Datasets that are loaded by name, without a path."""


def _find(path: str | Path, origin: str) -> Path:
    """Return the archive or folder of CIFAR-100 at a path that the user passed."""
    where = expanded(path)
    found = cifar100.find_official(where)
    if found is None:
        state = "does not contain CIFAR-100" if where.exists() else "does not exist"
        raise UserError(
            f"{where}{origin} {state}. Pass the path of {cifar100.ARCHIVE}, or of the folder "
            f"{cifar100.FOLDER} with the files train, test and meta."
        )
    return found


def _from_cache_folder() -> Dataset:
    """Read the archive or folder in the user's cache folder, downloaded if necessary."""
    found = cifar100.find_official(cache_folder())
    if found:
        return cifar100_cache.load_cached(found)
    archive = cache_folder() / cifar100.ARCHIVE
    download(cifar100.URL, archive)
    try:
        return cifar100_cache.load_cached(archive)
    except UserError as error:  # a login page, for example
        raise UnavailableError(
            f"{cifar100.URL} sent something other than CIFAR-100: {error}"
        ) from error
    finally:
        archive.unlink(missing_ok=True)  # later runs read the converted copy
