"""Pictures from a .zip or .tar: unpacked once, safely, into the user's cache folder.

Only regular files that are pictures or tables by their names are written, each under a path that
stays below the folder; links and devices never. What an archive may grow to is limited.
"""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from hundredfold.data.table import SUFFIXES
from hundredfold.errors import UserError
from hundredfold.files import alone, stamp
from hundredfold.pictures import is_picture

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_GROWTH = 50
"""Times its own size that an archive may unpack to, beyond FREE_BYTES: pictures hardly shrink."""
FREE_BYTES = 2**30
CHUNK = 2**20


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(ARCHIVES)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive below `folder`, unless it is there already; return where it lies.

    A single folder at its top is stepped into.

    Raises:
        UserError: it is damaged, a path in it leads outside, it unpacks to too much, or the disk
            is full.
    """
    stat = path.stat()
    key = repr((str(path.resolve()), stamp(path)))
    target = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not target.exists():
        with alone(folder.with_suffix(".lock")):
            if not target.exists():  # another process may have been faster
                _unpack(path, target, MOST_GROWTH * stat.st_size + FREE_BYTES)
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _unpack(path: Path, target: Path, most: int) -> None:
    """Unpack an archive into a folder that gets its name when it is whole."""
    part = target.with_suffix(".part")
    for left in target.parent.glob("*.part"):  # of processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _write_all(path, part, most)
        part.replace(target)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"Cannot unpack {path}: {error.strerror or error}.") from error
    except Exception as error:  # archives can be damaged in a score of ways
        raise UserError(f"{path} is cut short or damaged: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_all(path: Path, folder: Path, most: int) -> None:
    """Write an archive's pictures and tables into a folder, `most` bytes in all at most."""
    written = 0
    for name, file in _members(path):
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
            raise UserError(f"{path} has a path that leads outside, {name!r}: it is not unpacked.")
        target = folder.joinpath(*parts)
        if not is_picture(target) and target.suffix.lower() not in SUFFIXES:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with file, target.open("wb") as out:  # of two of one name the later counts, as for tar
            while chunk := file.read(CHUNK):
                written += len(chunk)
                if written > most:
                    raise UserError(
                        f"{path} unpacks to more than {most:,} bytes, {MOST_GROWTH} times its "
                        "size and more: if you trust it, unpack it yourself and name the folder."
                    )
                out.write(chunk)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of each regular file of an archive."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.flag_bits & 1:
                    raise UserError(f"{path} is encrypted: unpack it yourself, name the folder.")
                kind = info.external_attr >> 28  # of Unix: 8 a file, 10 a link; 0 is not said
                if not info.is_dir() and kind in (0, 8):
                    yield info.filename, archive.open(info)
    else:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file
