"""List the pictures of a set that is stored as shards: parquet files, or archives of WebDataset."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from math import prod
from pathlib import Path

from hundredfold.data import parquet
from hundredfold.data.layout import parse_split_name, to_nfc
from hundredfold.data.listing import (
    Entry,
    Listing,
    describe_similar_classes,
    qualify_shared_names,
    sort_entries,
)
from hundredfold.data.shard_index import read_index
from hundredfold.data.table import COLUMNS, read_entries
from hundredfold.data.unpack import UNPACKED_TABLE, UnpackedFolder, unpacked_folder
from hundredfold.data.webdataset import TARS, is_webdataset, unpack_webdataset
from hundredfold.pictures.walk import HIDDEN, FolderContents, in_natural_order, walk
from hundredfold.support.console import counted
from hundredfold.support.errors import DamagedFileError, UserError, first_few
from hundredfold.support.text import plural

PARQUET = ".parquet"
CLASS_NAMES = ("classnames.txt", "classes.txt")
"""Files with one class name per line, beside the shards or in the folder above them."""
BRACES = re.compile(r"\{([^{}]*)\}")
MAX_SHARDS = 100_000


def expand_braces(path: Path) -> list[Path]:
    """Return the paths that a pattern stands for; the path itself if it has no braces.

    Examples:
        >>> [str(path) for path in expand_braces(Path("{train,test}-{08..10}.tar"))][2:]
        ['train-10.tar', 'test-08.tar', 'test-09.tar', 'test-10.tar']
    """
    return [Path(text) for text in expand_text(str(path))]


def expand_text(pattern: str) -> list[str]:
    """Return the texts that a pattern stands for; the pattern itself if it has no braces.

    Raises:
        UserError: the pattern stands for too many texts.
    """
    fixed, *parts = BRACES.split(pattern)
    texts, choices = parts[1::2], [_choices(part) for part in parts[::2]]
    if prod(map(len, choices)) > MAX_SHARDS:
        raise UserError(f"{pattern} stands for more than {MAX_SHARDS:,} files.")
    return [
        fixed + "".join(a + b for a, b in zip(chosen, texts, strict=True))
        for chosen in product(*choices)
    ]


def _choices(part: str) -> Sequence[str]:
    """Return what the text between two braces stands for: numbers from..to, or words."""
    if found := re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", part):
        first, last = found.groups()
        numbers = range(int(first), min(int(last), int(first) + MAX_SHARDS) + 1)
        return [str(number).zfill(len(first)) for number in numbers]
    return part.split(",") if "," in part else [f"{{{part}}}"]


def find_shards(path: Path, contents: FolderContents | None = None) -> list[Path]:
    """Return the shards of the set at a path in natural order, or none if it is something else.

    Args:
        path: a folder without pictures, in which or below which the shards are; a path with braces
            such as `train-{000..099}.tar`; or one archive of WebDataset.
        contents: what `walk` returned for a folder, if it was called before.

    Raises:
        UserError: a pattern stands for too many files, or a folder cannot be read.
    """
    # Methods of pathlib raise an error if a name is too long.
    if os.path.isdir(path):  # noqa: PTH112
        contents = contents or walk(path)
        files = [path / name for name, reason in contents.skipped if reason != HIDDEN]
        shards = [] if contents.pictures else [file for file in files if _is_named_like_one(file)]
    elif os.path.exists(path):  # noqa: PTH110
        shards = [path] if path.name.lower().endswith(TARS) else []
    else:
        shards = [each for each in expand_braces(path) if _is_named_like_one(each)]
    if any(os.path.isfile(shard) and _is_shard(shard) for shard in shards):  # noqa: PTH113
        return shards
    return []


def describe_unused_shards(path: Path, contents: FolderContents) -> str:
    """Return a sentence about shards that are beside pictures in a folder; empty if there are none.

    Args:
        path: the folder.
        contents: what `walk` returned for it.
    """
    files = [path / name for name, reason in contents.skipped if reason != HIDDEN]
    shards = list[str]()
    with suppress(UserError):  # reading parquet needs a package, which pictures do not
        shards += (file.name for file in files if _is_named_like_one(file) and _is_shard(file))
    if not shards:
        return ""
    return (
        f"{path} has pictures and shards. The pictures are used, and the shards are not: "
        f"{first_few(shards)}. To use the shards, pass their names, or move them to a folder of "
        "their own."
    )


def _is_named_like_one(path: Path) -> bool:
    return path.name.lower().endswith((*TARS, PARQUET))


def _is_shard(path: Path) -> bool:
    if path.suffix.lower() != PARQUET:
        return is_webdataset(path)
    try:
        return parquet.holds_pictures(path, COLUMNS["path"])
    except DamagedFileError:
        return False


def list_shards(path: Path, shards: Sequence[Path]) -> Listing:
    """List the pictures of all shards of a set.

    The name of a shard, or of a folder that it is in, says the split: `train-00000-of-00008`. What
    is missing or damaged is left out, and the listing says so.

    Args:
        path: the path that the user passed.
        shards: what `find_shards` returned for it.

    Raises:
        UserError: no shard can be used, or the shards are those of several sets.
    """
    root = path if path.is_dir() else Path(os.path.commonpath([s.parent for s in shards]))
    _refuse_several_sets(path, shards, root)
    entries: list[Entry] = []
    left_out, undivided = _describe_missing(_expected(shards) if path.is_dir() else shards), []
    with counted("Reading shards", len(shards)) as advance:
        for shard in filter(Path.is_file, shards):
            try:
                found = _list_shard(shard, root, left_out)
                entries += found
                undivided += [shard.name] if any(not entry.split for entry in found) else []
            except DamagedFileError as error:
                reason = str(error).removesuffix(".")
                left_out.append(f"The pictures of {shard} cannot be used ({reason})")
            advance(1)
    _refuse_missing_superclasses(path, entries)
    if not entries:
        raise UserError(f"{path} has no picture that can be used. {'. '.join(left_out)}.")
    remarks = describe_similar_classes(entries)
    if undivided and any(entry.split for entry in entries):
        remarks.append(
            "The names of these shards name no split, so their pictures are used for training: "
            f"{first_few(undivided)}."
        )
    return Listing(
        sort_entries(qualify_shared_names(entries)),
        left_out=tuple(left_out),
        remarks=tuple(remarks),
    )


def _refuse_several_sets(path: Path, shards: Sequence[Path], root: Path) -> None:
    """Refuse folders that hold the same pictures with other labels, as some data sets have them."""
    sets = {
        tuple(part for part in shard.relative_to(root).parts[:-1] if not parse_split_name(part))
        for shard in shards
    }
    if len(sets) > 1:
        names = first_few(sorted("/".join(parts) or "." for parts in sets))
        raise UserError(f"{path} has shards in several folders: {names}. Pass one of them.")


def _refuse_missing_superclasses(path: Path, entries: Sequence[Entry]) -> None:
    """Raise a UserError if only some pictures have a superclass, as `read_entries` does."""
    without = [entry.name for entry in entries if not entry.parent]
    if 0 < len(without) < len(entries):
        raise UserError(
            f"{path}: {without[0]} has no superclass, although other pictures have one."
        )


def _expected(shards: Sequence[Path]) -> list[Path]:
    """Return the shards that a folder should have, by its index and by names such as 0-of-8."""
    paths = set(shards)
    for folder in {shard.parent for shard in shards}:
        paths |= {folder / name for name in read_index(folder).names}
    numbers = defaultdict(set)  # of each group of shards
    for shard in shards:
        if found := re.fullmatch(r"(.*-)(\d{1,6})(-of-(\d{1,6}))(-.*)?\.parquet", shard.name):
            start, number, end, total, _ = found.groups()
            numbers[shard.parent, start, end, int(total), len(number)].add(int(number))
    for (folder, start, end, total, digits), present in numbers.items():
        missing = set(range(total)) - present
        paths |= {folder / f"{start}{i:0{digits}d}{end}.parquet" for i in missing}
    return [Path(name) for name in in_natural_order(map(str, paths))]


def _describe_missing(shards: Sequence[Path]) -> list[str]:
    missing = [shard.name for shard in shards if not shard.is_file()]
    if not missing:
        return []
    return [
        f"The pictures of {len(missing):,} of {plural(len(shards), 'shard')} are missing: "
        f"{first_few(missing)}"
    ]


def _list_shard(shard: Path, root: Path, left_out: list[str]) -> list[Entry]:
    """Return the pictures with labels of a shard, and add sentences about the others.

    Raises:
        DamagedFileError: the shard cannot be read.
        UserError: there is no memory, no space or no package to read it.
    """
    unpacked = _unpack(shard, root)
    left_out += unpacked.left_out
    found, unlabelled = read_entries(
        unpacked.folder / UNPACKED_TABLE, str(shard), unpacked.folder, lenient=True
    )
    if unlabelled:
        pictures = plural(len(unlabelled), "picture")
        left_out.append(
            f"{shard} has {pictures} without a label of a known class: {first_few(unlabelled)}"
        )
    within = shard.relative_to(root)
    split = next(filter(None, map(_split_of, (within.stem, *reversed(within.parent.parts)))), "")
    return [
        entry._replace(name=f"{within.as_posix()}/{entry.name}", split=entry.split or split)
        for entry in found
    ]


def _unpack(shard: Path, root: Path) -> UnpackedFolder:
    folder = unpacked_folder()
    if shard.suffix.lower() == PARQUET:
        return parquet.unpack_parquet(shard, folder, COLUMNS["path"])
    return unpack_webdataset(shard, folder, _read_class_names(shard, root))


def _split_of(name: str) -> str:
    parsed = parse_split_name(name)
    return parsed[0] if parsed else ""


def _read_class_names(shard: Path, root: Path) -> list[str]:
    """Return the names of classes 0, 1, ..., from a file beside a shard; empty if there is none.

    The file may also be in the folder that the user passed, or above a folder such as `train`. A
    name that several classes have is followed by the number of the class.
    """
    folders = [shard.parent, root] if shard.is_relative_to(root) else [shard.parent]
    if _split_of(shard.parent.name):
        folders.append(shard.parent.parent)
    for path in (folder / name for folder in folders for name in CLASS_NAMES):
        if path.is_file():
            try:
                text = path.read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path} is not a list of class names in UTF-8 text.") from error
            names = [to_nfc(line.strip()) for line in text.rstrip().split("\n")]
            # A label is the number of a line, so an empty line would shift the classes.
            if "" in names:
                raise UserError(f"{path} has an empty line. Delete it, or name its class.")
            counts = Counter(names)  # some lists for ImageNet have several classes of one name
            return [
                f"{name} ({number})" if counts[name] > 1 else name
                for number, name in enumerate(names)
            ]
    return []
