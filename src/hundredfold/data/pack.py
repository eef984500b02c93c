"""Pack pictures into shards of WebDataset, in parallel. What was packed before is kept."""

import io
import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

from hundredfold.augment import generator
from hundredfold.data.collection import list_pictures
from hundredfold.data.listing import Entry
from hundredfold.data.shard_index import INDEX, Shard, checksum, read_index
from hundredfold.data.shards import CLASS_NAMES
from hundredfold.data.table import is_kept
from hundredfold.pictures.load import is_picture
from hundredfold.pictures.pixels import open_picture
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.console import counted, say
from hundredfold.support.errors import UserError, first_few
from hundredfold.support.files import (
    UNFINISHED,
    cache_folder,
    file_stamp,
    fingerprint,
    make_folder,
    process_lock,
    remove_unfinished,
    save_file,
)
from hundredfold.support.text import plural, unescape_formula

VERSION = 1
"""Version of how pictures are divided and named."""
UNDIVIDED = "pictures"
"""Start of the names of shards whose pictures belong to no split."""
LONGEST_KEY = 90
"""Maximum number of bytes in a key: longer names take another kilobyte of an archive."""


class _Job(NamedTuple):
    """A shard to write."""

    path: Path
    members: Sequence[tuple[int, Entry]]
    """The pictures, each with its number in the listing."""


def pack(
    source: Path, folder: Path, per_shard: int = 1000, tell: Callable[[str], None] = say
) -> list[Shard]:
    r"""Write the pictures of a folder, an archive or a table to shards, and return these.

    The files of the pictures are copied as they are. Each shard has pictures of all classes, in a
    random order that is always the same. An interrupted call goes on where it stopped: shards that
    are complete are not written again.

    Args:
        source: path as in `list_pictures`.
        folder: folder for the shards; it is created if it does not exist.
        per_shard: number of pictures in a shard.
        tell: function that shows the user a sentence about pictures that are left out.

    Raises:
        UserError: the pictures cannot be read, the name of a class cannot be kept, the folder has
            other files or shards of other pictures, or the disk is full.

    Examples:
        >>> _ = Path("list.csv").write_text("path,label\ncat.jpg,cat")
        >>> [shard.name for shard in pack(Path("list.csv"), Path("shards"))]
        ['pictures-000000.tar']
    """
    if per_shard < 1:
        raise UserError(f"--per-shard is {per_shard}, but must be at least 1.")
    entries = _existing(source, tell)
    classes = in_natural_order(entry.label for entry in entries)
    _refuse_names(entries)
    stamps = [(*entry[1:], *file_stamp(entry.path)[:2]) for entry in entries]
    packed = fingerprint(VERSION, per_shard, stamps).hex()
    jobs = _divide(entries, folder, per_shard)
    key = fingerprint(str(folder.absolute())).hex()[:16]
    with process_lock(cache_folder() / "locks" / f"{key}.lock"):  # two would write the same files
        return _pack(source, folder, jobs, packed, classes)


def _pack(
    source: Path, folder: Path, jobs: Sequence[_Job], packed: str, classes: Sequence[str]
) -> list[Shard]:
    """Write the shards that are not finished, and return all.

    Args:
        source: the path that the user passed.
        folder: folder for the shards.
        jobs: all shards.
        packed: fingerprint of the pictures and of how they are divided.
        classes: names of the classes 0, 1, ....
    """
    done = _finished(make_folder(folder), packed, [job.path.name for job in jobs])
    save_file(folder / CLASS_NAMES[0], "".join(f"{name}\n" for name in classes))
    number = {name: i for i, name in enumerate(classes)}
    missing = [job for job in jobs if job.path.name not in done]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        total = sum(len(job.members) for job in jobs)
        with counted("Packing", total) as advance, (folder / INDEX).open("a") as index:
            advance(total - sum(len(job.members) for job in missing))
            for shard in pool.map(partial(_write_shard, number), missing):
                index.write(f"{json.dumps(shard._asdict())}\n")
                index.flush()
                done[shard.name] = shard
                advance(shard.pictures)
    except OSError as error:
        raise UserError(
            f"Cannot pack {source} into {folder}: {error.strerror or error}. What is packed is "
            "kept; run the same command again to go on."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return [done[job.path.name] for job in jobs]


def _existing(source: Path, tell: Callable[[str], None]) -> list[Entry]:
    """Return the pictures of a source, and tell which are left out."""
    listing = list_pictures(source)
    left_out = (f"{sentence}. This data is left out." for sentence in listing.left_out)
    for sentence in (*listing.remarks, *left_out):
        tell(sentence)
    entries = [entry for entry in listing.entries if entry.path.is_file()]
    if absent := [entry.name for entry in listing.entries if not entry.path.is_file()]:
        tell(f"{plural(len(absent), 'picture')} not found and left out: {first_few(absent)}.")
    return entries


def _refuse_names(entries: Sequence[Entry]) -> None:
    """Raise a UserError if the name of a class or superclass would be read as another one."""
    for name in sorted({name for entry in entries for name in (entry.label, entry.parent)} - {""}):
        if not is_kept(name) or unescape_formula(name) != name:
            raise UserError(
                f"The class name {name!r} cannot be stored in shards, because it would be read as "
                "another name. Rename the class."
            )


def _finished(folder: Path, packed: str, jobs: Sequence[str]) -> dict[str, Shard]:
    """Return the finished shards of a folder, and begin its index if there is none.

    Args:
        folder: an existing folder.
        packed: fingerprint of the pictures and of how they are divided.
        jobs: names of all shards.

    Raises:
        UserError: the folder has other files, or shards of other pictures.
    """
    before, _, shards = read_index(folder)
    names = {path.name for path in folder.iterdir() if not path.name.endswith(UNFINISHED)}
    if (before and before != packed) or (not before and names - {INDEX, CLASS_NAMES[0]}):
        what = "shards of other pictures" if before else "other files"
        raise UserError(f"{folder} has {what}. Name another folder, or delete this one.")
    if before:
        remove_unfinished(folder)
    done = {
        name: shard
        for name, shard in shards.items()
        if name in names and checksum(folder / name) == shard.sha256
    }
    lines = [{"packed": packed, "names": jobs}, *(shard._asdict() for shard in done.values())]
    save_file(folder / INDEX, "".join(f"{json.dumps(line)}\n" for line in lines))
    return done


def _divide(entries: Sequence[Entry], folder: Path, per_shard: int) -> list[_Job]:
    """Return the shards of each split, whose pictures are in a random order."""
    splits: dict[str, list[tuple[int, Entry]]] = defaultdict(list)
    for member in enumerate(entries):
        splits[member[1].split].append(member)
    jobs = []
    for split, members in splits.items():
        order = torch.randperm(len(members), generator=generator(0, "pack", split)).tolist()
        for i, start in enumerate(range(0, len(order), per_shard)):
            chosen = [members[j] for j in order[start : start + per_shard]]
            jobs.append(_Job(folder / f"{split or UNDIVIDED}-{i:06d}.tar", chosen))
    return jobs


def _write_shard(number: Mapping[str, int], job: _Job) -> Shard:
    """Write a shard, under its name only when it is complete; equal pictures give equal bytes.

    Args:
        number: number of each class.
        job: the shard.
    """
    path = job.path.with_name(f".{job.path.name}{UNFINISHED}")
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for place, entry in job.members:
                key, suffix = _key(place, entry)
                _add(tar, f"{key}{suffix}", entry.path.read_bytes())
                if entry.parent or entry.group:
                    label = {"label": entry.label, "superclass": entry.parent, "group": entry.group}
                    _add(tar, f"{key}.json", json.dumps(label).encode())
                else:
                    _add(tar, f"{key}.cls", str(number[entry.label]).encode())
        file.flush()
        os.fsync(file.fileno())
    path.replace(job.path)
    return Shard(job.path.name, len(job.members), job.path.stat().st_size, checksum(job.path))


def _key(place: int, entry: Entry) -> tuple[str, str]:
    """Return the key of a picture, made of its number and its name, and the suffix of its file."""
    name = PurePosixPath(entry.name)
    suffix = name.suffix.lower() if is_picture(entry.path) else _suffix_by_content(entry.path)
    readable = re.sub(r"[^\w -]", "_", str(name.with_suffix("")), flags=re.ASCII)
    return f"{place:08d}_{readable}"[:LONGEST_KEY], suffix


def _suffix_by_content(path: Path) -> str:
    """Return a suffix for a file without one. If its picture is damaged, reading will say so."""
    try:
        with open_picture(path) as image:
            suffix = f".{(image.format or '').lower()}"
    except Exception:
        suffix = ""
    return suffix if is_picture(Path(f"x{suffix}")) else ".png"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
