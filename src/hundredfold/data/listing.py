"""List the pictures of a folder with their classes and splits, without decoding any."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from sys import intern
from typing import NamedTuple

from hundredfold.data.layout import (
    Folders,
    describe_similar_names,
    describe_unicode_forms,
    find_repeated_split,
    find_splits,
    find_wrapper,
    parse_split_name,
    refuse_shared_classes,
    refuse_split_classes,
    to_nfc,
)
from hundredfold.pictures.walk import (
    HEIC_REASON,
    HIDDEN,
    FolderContents,
    Skipped,
    in_natural_order,
    natural_key,
    walk,
)
from hundredfold.support.errors import UserError, first_few
from hundredfold.support.text import plural


class Entry(NamedTuple):
    """A picture that is to be read."""

    file: str
    """Path of the picture. There may be millions, and a `Path` takes several times the memory."""
    name: str
    """Name to show to people: the path within the source, with slashes."""
    split: str
    """train, validation or test; empty if the source does not say."""
    label: str
    """Name of the class, in Unicode's composed form."""
    parent: str
    """Name of the superclass, in Unicode's composed form; empty if there is none."""
    group: str = ""
    """Name of a group, such as a person, whose pictures belong together; empty if there is none."""

    @property
    def path(self) -> Path:
        """Path of the picture."""
        return Path(self.file)


@dataclass(frozen=True)
class Listing:
    """The pictures of a source in a fixed order, and what was left out."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...] = ()
    """Files that are not among the pictures, with the reasons."""
    empty_classes: tuple[Skipped, ...] = ()
    """Classes without any picture, with the reasons."""
    left_out: tuple[str, ...] = ()
    """Sentences, without full stops, about pictures that are left out."""
    remarks: tuple[str, ...] = ()
    """Sentences for the user about guesses that were made."""


def sort_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return entries sorted by file name, then by path.

    Numbered files thus keep the order of their numbers, whatever class or folder they are in.
    """

    def key(entry: Entry) -> tuple[str, ...]:
        file_name = entry.name.rpartition("/")[2]
        return natural_key(file_name), natural_key(entry.name), entry.name

    return tuple(sorted(entries, key=key))


def list_folder(
    root: Path,
    source: str = "",
    skipped: Sequence[Skipped] = (),
    contents: FolderContents | None = None,
) -> Listing:
    """List the pictures of a folder.

    The layout is `CLASS/PICTURE` or `SUPERCLASS/CLASS/PICTURE`, optionally below train/, val/ and
    test/. Outer folders that contain nothing but one folder are ignored.

    Args:
        root: the folder.
        source: name of the source in errors; empty for the folder's path.
        skipped: files that were skipped before, such as members of an archive.
        contents: what `walk` returned for the folder, if it was called before.

    Raises:
        UserError: the folder cannot be read, a link leads back to a folder above it, the class of a
            picture is missing, or the layout is ambiguous.
    """
    source = source or str(root)
    contents = contents or walk(root)
    skipped = (*skipped, *contents.skipped)
    if not contents.pictures:
        raise UserError(_no_pictures(source, skipped))
    places = {name: _folders(name)[:-1] for _, name in contents.pictures}
    wrapper = find_wrapper(places.values())
    inner = {name: place[len(wrapper) :] for name, place in places.items()}
    splits = find_splits(inner.values())
    if splits and "train" not in splits.values():
        first, *_ = sorted(splits)
        raise UserError(
            f"{source} has {' and '.join(sorted(splits))} but no training pictures. Put these into "
            f"a folder named train beside them, or pass one of the folders, such as "
            f"{source}/{first}."
        )
    roots, unlabelled = _class_roots(inner.values(), splits)
    entries, left_out = [], defaultdict(list)
    for path, name in contents.pictures:
        top = inner[name][:1]
        if splits and (not top or top[0] not in splits or top in unlabelled):
            left_out[top].append(name)
        else:
            *above, label = inner[name][len(roots.get(top, ())) :] or [""]
            split = splits[top[0]] if splits else ""
            entries.append(Entry(str(path), name, split, intern(label), intern("/".join(above))))
    _check_layout(entries, source)
    entries = qualify_shared_names(entries)
    full_roots = [(*wrapper, *root) for root in roots.values()] or [wrapper]
    folders = [_folders(name) for name in contents.folders]
    beside = (
        Skipped(name, "in no class" if top in unlabelled else "outside the split folders")
        for top, names in left_out.items()
        for name in names
    )
    return Listing(
        sort_entries(entries),
        (*skipped, *beside),
        tuple(_find_empty_classes(folders, set(places.values()), full_roots, skipped)),
        tuple(_describe_left_out(top, names, unlabelled) for top, names in left_out.items()),
        (
            *_describe_merged_splits(splits, unlabelled),
            *describe_unicode_forms(name for _, name in contents.pictures),
            *describe_similar_classes(entries),
        ),
    )


def _no_pictures(source: str, skipped: Iterable[Skipped]) -> str:
    shown = [f"{name} ({reason})" for name, reason in skipped if reason != HIDDEN]
    others = f" It has other files: {first_few(shown)}." if shown else ""
    return (
        f"{source} contains no pictures (jpg, png, webp, ...). Put the pictures of each class into "
        f"a folder with its name.{others}"
    )


def _folders(name: str) -> Folders:
    """Return the parts of a path, in Unicode's composed form."""
    return tuple(to_nfc(name).split("/"))


def _class_roots(
    places: Iterable[Folders], splits: Mapping[str, str]
) -> tuple[dict[Folders, Folders], set[Folders]]:
    """Return the folder below which each split has its classes, and the splits without labels.

    A split has no labels if all its pictures are directly in its folder, unless that is so for
    every training split too.
    """
    roots: dict[Folders, Folders] = {}
    unlabelled: set[Folders] = set()
    places = list(places)
    for top, split in splits.items():
        inside = [place[1:] for place in places if place[:1] == (top,)]
        repeated = find_repeated_split(inside, split)
        roots[(top,)] = (top, *repeated)
        if all(len(place) == len(repeated) for place in inside):
            unlabelled.add((top,))
    training = [top for top, split in splits.items() if split == "train"]
    return roots, set() if all((top,) in unlabelled for top in training) else unlabelled


def _describe_left_out(top: Folders, names: Sequence[str], unlabelled: set[Folders]) -> str:
    pictures = plural(len(names), "picture")
    if top in unlabelled:
        return f"{pictures} in {top[0]} have no label, because they are not in a class folder"
    where = f"in {top[0]}" if top else "outside of any folder"
    verb = "belongs" if len(names) == 1 else "belong"
    return f"{pictures} {where} {verb} to none of the splits"


def _describe_merged_splits(splits: Mapping[str, str], unlabelled: set[Folders]) -> list[str]:
    """Return a sentence for each split that has several folders."""
    tops: dict[str, list[str]] = defaultdict(list)
    for top, split in sorted(splits.items()):
        if (top,) not in unlabelled:
            tops[split].append(top)
    return [
        f"The folders {' and '.join(names)} are all used as the {split} split."
        for split, names in tops.items()
        if len(names) > 1
    ]


def describe_similar_classes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences about classes and superclasses whose names are nearly the same."""
    labels, parents = {entry.label for entry in entries}, {entry.parent for entry in entries}
    return [*describe_similar_names(labels), *describe_similar_names(parents)]


def _check_layout(entries: Sequence[Entry], source: str) -> None:
    """Raise a UserError if the folders of the entries do not give each picture one class."""
    for entry in entries:
        where = f"{source}: {entry.name}"
        if not entry.label:
            raise UserError(
                f"{where} is in no class. Put the pictures of each class into a folder with its "
                "name."
            )
        if "/" in entry.parent:
            raise UserError(
                f"{where} is nested too deep. Use CLASS/PICTURE or SUPERCLASS/CLASS/PICTURE, "
                "optionally below train, val and test."
            )
    flat = next((entry for entry in entries if not entry.parent), None)
    nested = next((entry for entry in entries if entry.parent), None)
    if flat and nested:
        raise UserError(
            f"{source} has pictures at two depths, such as {flat.name} and {nested.name}, so it is "
            f"not clear whether {nested.parent} is a class or a superclass. Put all pictures at "
            "the same depth."
        )
    classes: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        classes[entry.parent].add(entry.label)
    if nested:
        refuse_shared_classes(classes, source)
    else:
        refuse_split_classes(classes[""], source)


def qualify_shared_names(entries: Sequence[Entry]) -> list[Entry]:
    """Put the superclass before each class name that occurs in several superclasses."""
    parents: dict[str, set[str]] = {}
    for entry in entries:
        parents.setdefault(entry.label, set()).add(entry.parent)
    return [
        entry._replace(label=f"{entry.parent}/{entry.label}")
        if len(parents[entry.label]) > 1
        else entry
        for entry in entries
    ]


def _find_empty_classes(
    folders: Iterable[Folders],
    filled: Iterable[Folders],
    roots: Sequence[Folders],
    skipped: Sequence[Skipped],
) -> list[Skipped]:
    """Return the folders in the place of a class that contain no picture in any split.

    Args:
        folders: all folders.
        filled: folders that directly contain pictures.
        roots: folders below which classes or superclasses begin.
        skipped: files that are no pictures.
    """

    def within(folder: Folders) -> Folders | None:
        return next((folder[len(r) :] for r in roots if folder[: len(r)] == r), None)

    distinct = set(folders)
    parents = {folder[:-1] for folder in distinct}
    holding = {folder[:depth] for folder in filled for depth in range(len(folder) + 1)}
    classes = {within(folder) for folder in holding}
    depth = max(len(inside) for folder in filled if (inside := within(folder)) is not None)
    empty, reasons = [], _count_reasons(skipped)
    for name in in_natural_order("/".join(folder) for folder in distinct - holding):
        folder = tuple(name.split("/"))
        inside = within(folder)
        if inside is None:  # beside the splits: a split itself, or pictures that cannot be read
            split = parse_split_name(folder[-1])
            is_class = folder[:-1] in holding and (split or HEIC_REASON in reasons[name])
        else:
            leaf = len(inside) == depth or (len(inside) < depth and folder not in parents)
            is_class = leaf and inside not in classes
        if is_class:
            empty.append(Skipped(name, _describe_reasons(reasons[name])))
    return empty


def _count_reasons(skipped: Iterable[Skipped]) -> dict[str, Counter[str]]:
    """Return why files are no pictures, and of how many, for each folder that they are below."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for item in skipped:
        if item.reason != HIDDEN:
            parts = to_nfc(item.name).split("/")[:-1]
            for folder in accumulate(parts, "{}/{}".format):
                reasons[folder][item.reason] += 1
    return reasons


def _describe_reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{plural(n, 'file')}: {reason}" for reason, n in reasons.items()) or "empty"
