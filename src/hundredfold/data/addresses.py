"""Download data from an address: http(s)://, or s3://, gs:// and others that fsspec can read."""

import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from hundredfold.data.download import TIMEOUT, download, partial_path
from hundredfold.data.huggingface import is_data
from hundredfold.data.layout import parse_split_name
from hundredfold.data.shard_index import INDEX
from hundredfold.data.shards import CLASS_NAMES, expand_text
from hundredfold.data.webdataset import TARS
from hundredfold.pictures.urls import is_url
from hundredfold.pictures.walk import is_hidden
from hundredfold.support.console import byte_progress, say
from hundredfold.support.errors import UnavailableError, UserError, first_few, first_line
from hundredfold.support.files import cache_folder, fingerprint, process_lock, save_file
from hundredfold.support.text import plural

CONNECTIONS = 16
"""Number of files that are asked at a time whether they have changed."""
DENIED, MISSING = 403, (404, 410)
"""HTTP statuses of a file that may not be read, or that does not exist. Some stores answer with the
first for a file that does not exist."""


class _RemoteFile(NamedTuple):
    """A file at an address."""

    address: str
    name: str
    """Path below the local folder."""
    stamp: Callable[[], str]
    """Returns a text that changes when the file changes; raises FileNotFoundError, or
    PermissionError if the file may not exist either."""
    fetch: Callable[[Path], None]
    """Writes the file to a path, or raises an UnavailableError."""
    optional: bool = False
    """Whether the file may be missing without a word."""


def is_address(source: str) -> bool:
    """Return whether `--data` is an address rather than a path."""
    return "://" in source


def without_key(source: str) -> str:
    """Return `--data` without the query and the user of an address, which may hold a key."""
    if not is_address(source):
        return source
    protocol, _, rest = source.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{protocol}://{host.rpartition('@')[2]}{slash}{path}"


def download_address(address: str) -> Path:
    """Download what an address names into the user's cache folder, and return its path there.

    An unchanged file is not downloaded again. A file that cannot be reached is taken from an
    earlier download, and a sentence says so.

    Args:
        address: that of an archive, of a table, or of shards such as
            https://host/train-{000..099}.tar; for other protocols than http(s) also of a folder.

    Returns:
        The path of the file or folder, or a path with the braces of the address.

    Raises:
        UserError: there is no such file, or a package for the protocol is missing.
        UnavailableError: the server cannot be reached, or the disk is full.
    """
    protocol, separator, rest = address.partition("://")
    address = f"{protocol.lower()}{separator}{rest}"
    if is_url(address):
        root, path, files = _web_files(address)
    else:
        root, path, files = _store_files(address)
    folder = cache_folder() / "downloads" / fingerprint(root).hex()[:16]
    try:
        with process_lock(folder.with_suffix(".lock")):
            _update(files, folder)
            if not path:
                _remove_others(files, folder)
        if any((folder / file.name).exists() for file in files):
            return folder / path
    except OSError as error:
        raise UnavailableError(f"Cannot write {folder}: {error.strerror or error}.") from error
    raise UserError(
        f"There is no file at {address} that can be used, or you lack the permission to read it."
    )


def _web_files(address: str) -> tuple[str, str, list[_RemoteFile]]:
    """Return the folder of an http(s) address, the path below it, and the files to download.

    The path is empty if the address is that of a whole folder.
    """
    parsed = re.fullmatch(r"(https?://[^/?#{}]+/(?:[^?#{}]*/)?)([^?#]+)(\?[^#]*)?(#.*)?", address)
    if not parsed:
        raise UserError(
            f"{address} names no file. Pass the address of an archive, a table or shards."
        )
    root, path, query = parsed[1], unquote(parsed[2]), parsed[3] or ""

    def file(name: str, written: str, *, optional: bool = False) -> _RemoteFile:
        url = f"{root}{written}{query}"
        return _RemoteFile(
            url, name, partial(_web_stamp, url), partial(download, url), optional=optional
        )

    names = expand_text(parsed[2])
    files = [file(unquote(name), name) for name in names]
    return root + query, path, files + [file(n, n, optional=True) for n in _beside(names)]


def _beside(names: Sequence[str]) -> list[str]:
    """Return the files that may be beside shards, or above a folder such as `train`.

    They are class names and checksums.
    """
    folders = {PurePosixPath(name).parent for name in names if name.lower().endswith(TARS)}
    folders |= {folder.parent for folder in folders if parse_split_name(folder.name)}
    return [str(folder / name) for folder in sorted(folders) for name in (*CLASS_NAMES, INDEX)]


def _web_stamp(url: str) -> str:
    # A signed address may allow no HEAD, so the content is requested but not read.
    request = urllib.request.Request(url, headers={"User-Agent": "hundredfold"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            values = [response.headers.get(name) for name in ("ETag", "Last-Modified")]
            if not any(values):  # nothing would tell a changed file
                return secrets.token_hex()
            return str([*values, response.headers.get("Content-Length")])
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in MISSING:
            raise FileNotFoundError(url) from error
        if error.code == DENIED:
            raise PermissionError(url) from error
        raise


def _store_files(address: str) -> tuple[str, str, list[_RemoteFile]]:
    """Return what `_web_files` returns, for an address of fsspec."""
    import fsspec  # noqa: PLC0415  # comes with torch, and is slow to import

    protocol = address.partition("://")[0]
    try:
        store, path = fsspec.core.url_to_fs(address)
        if "{" not in path and store.isdir(path):
            root = path
            found = [name[len(root) :].lstrip("/") for name in store.find(root)]
            names = [name for name in found if is_data(name)]
            _tell_others(address, [name for name in found if not is_data(name)])
            path, beside = "", list[str]()
        else:
            root = path.partition("{")[0].rpartition("/")[0]
            path = path[len(root) :].lstrip("/")
            names = expand_text(path)
            beside = _beside(names)
    except ImportError as error:
        raise UserError(
            f"Cannot read {address}: {first_line(error)}. To read addresses that begin with s3:// "
            "or gs://, install more packages: pip install 'hundredfold[remote]'."
        ) from error
    except UserError:
        raise
    except Exception as error:  # each protocol has its own kinds
        raise _unavailable(address, error) from error
    files = [_store_file(store, protocol, f"{root}/{name}", name) for name in names]
    files += [
        _store_file(store, protocol, f"{root}/{name}", name, optional=True) for name in beside
    ]
    return f"{protocol}://{root} {not path}", path, files


def _tell_others(address: str, names: Sequence[str]) -> None:
    """Say which files are not downloaded, apart from hidden ones."""
    names = [name for name in names if not is_hidden(PurePosixPath(name).name)]
    if names:
        verb = "is" if len(names) == 1 else "are"
        say(
            f"{plural(len(names), 'file')} at {address} {verb} not downloaded, because the name is "
            f"not that of a picture, a table or a shard: {first_few(names)}."
        )


def _store_file(
    store: Any, protocol: str, place: str, name: str, *, optional: bool = False
) -> _RemoteFile:
    stamp, fetch = partial(_stamp, store, place), partial(_fetch, store, place)
    return _RemoteFile(f"{protocol}://{place}", name, stamp, fetch, optional=optional)


def _stamp(store: Any, place: str) -> str:
    return str(store.ukey(place))


def _fetch(store: Any, place: str, target: Path) -> None:
    """Download a file of fsspec with a progress bar."""
    from fsspec.callbacks import Callback  # noqa: PLC0415  # slow to import

    part = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with byte_progress(place, store.size(place) or 0, 0) as advance:
            callback = Callback()
            callback.relative_update = advance
            store.get_file(place, str(part), callback=callback)
        part.replace(target)
    except Exception as error:  # each protocol has its own kinds
        raise _unavailable(place, error) from error


def _unavailable(address: str, error: Exception) -> UnavailableError:
    reason = first_line(error) or type(error).__name__
    return UnavailableError(
        f"Cannot read {address}: {reason}. Check the address, the network, your credentials and "
        "the free disk space."
    )


def _update(files: Sequence[_RemoteFile], folder: Path) -> None:
    """Download the files that are new or have changed; delete those that no longer exist.

    Raises:
        UserError: a name leads outside of the folder.
        UnavailableError: a file cannot be downloaded, and was not before.
    """
    for file in files:
        parts = PurePosixPath(file.name).parts
        if not parts or ".." in parts or "\\" in file.name or file.name.startswith("/"):
            raise UserError(f"{file.address} leads outside of its folder.")
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        stamps = list(pool.map(_stamp_or_error, files))
    kept = []
    for file, stamp in zip(files, stamps, strict=True):
        target = folder / file.name
        if isinstance(stamp, FileNotFoundError):
            target.unlink(missing_ok=True)
        elif isinstance(stamp, str):
            _download(file, stamp, target, folder.with_suffix(".stamps") / file.name)
        elif target.exists():
            kept.append(file.address)
        elif not isinstance(stamp, PermissionError) and not (file.optional and kept):
            raise _unavailable(file.address, stamp) from stamp
    if kept:
        say(f"The earlier download is used, because these cannot be read now: {first_few(kept)}.")


def _stamp_or_error(file: _RemoteFile) -> str | Exception:
    try:
        return file.stamp()
    except Exception as error:  # each protocol has its own kinds
        return error


def _download(file: _RemoteFile, stamp: str, target: Path, note: Path) -> None:
    """Download a file, unless the note says that a file with the same stamp was downloaded."""
    if not note.exists() or note.read_text() != stamp:
        target.unlink(missing_ok=True)
        partial_path(target).unlink(missing_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        save_file(note, stamp)
    if not target.exists():
        file.fetch(target)


def _remove_others(files: Iterable[_RemoteFile], folder: Path) -> None:
    """Delete the files of a folder that no longer exist at its address."""
    names = {folder / file.name for file in files}
    for path in list(folder.rglob("*")):
        if path.is_file() and path not in names:
            path.unlink()
