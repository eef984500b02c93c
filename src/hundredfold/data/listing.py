"""Which pictures a folder names, and of which class: nothing is decoded here."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hundredfold.data.shape import (
    Folders,
    alike_names,
    find_splits,
    inner_wrapper,
    normal,
    refuse_alike,
    refuse_paired,
    split_named,
    wrapper,
)
from hundredfold.pictures.walk import HEIC_REASON, HIDDEN, Passed, in_natural_order, natural, walk
from hundredfold.support.errors import UserError, some
from hundredfold.support.text import plural


class Entry(NamedTuple):
    """A picture that is to be read."""

    path: Path
    """Where it is."""
    name: str
    """How it is told to people: its path within the data, with slashes."""
    split: str
    """train, validation or test; empty where the data does not say."""
    label: str
    """Its class, in Unicode's composed form."""
    parent: str
    """Its superclass, in that form too; empty where there is none."""


@dataclass(frozen=True)
class Listing:
    """The pictures of a source, in a fixed order, and what is not among them."""

    entries: tuple[Entry, ...]
    passed: tuple[Passed, ...] = ()
    """Files that were passed over."""
    lost: tuple[Passed, ...] = ()
    """Classes without any picture, and why."""
    left_out: tuple[str, ...] = ()
    """Sentences about pictures that are not among them."""
    remarks: tuple[str, ...] = ()
    """Sentences about what was decided for the user."""


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return entries by file name, then by path.

    By name first, so that numbered files keep the order of their numbers, whichever class or folder
    each is in.
    """
    return tuple(
        sorted(entries, key=lambda e: (natural(e.name.rpartition("/")[2]), natural(e.name), e.name))
    )


def list_folder(root: Path, called: str = "", passed: Sequence[Passed] = ()) -> Listing:
    """List a folder: `<class>/…`, or that below train/, val/ and test/; or with superclasses.

    Where pictures lie two folders deep rather than one, the upper one is the superclass. A folder
    that holds nothing but one folder of folders is stepped into.

    Args:
        root: the folder.
        called: what errors call it; empty for its path.
        passed: what was passed over before it lay there.

    Raises:
        UserError: the folder cannot be read, a link leads back to a folder above it, or its shape
            says no class for some picture, or may mean several things.
    """
    called = called or str(root)
    found = walk(root)
    others = (*passed, *found.passed)
    if not found.pictures:
        shown = [f"{name} ({reason})" for name, reason in others if reason != HIDDEN]
        more = f" It has other files: {some(shown)}." if shown else ""
        raise UserError(
            f"{called} holds no pictures (jpg, png, webp, ...) in folders of classes.{more}"
        )
    places = {name: _folders(name)[:-1] for _, name in found.pictures}
    above = wrapper(places.values())
    within = {name: place[len(above) :] for name, place in places.items()}
    splits = find_splits(within.values())
    if splits and "train" not in splits.values():
        first, *_ = sorted(splits)
        raise UserError(
            f"{called} has {' and '.join(sorted(splits))} and no training pictures. Put these into "
            f"a folder train beside them, or name one of them alone, such as {called}/{first}."
        )
    roots, unlabelled = _roots(within.values(), splits)
    entries, left = [], defaultdict(list)
    for path, name in found.pictures:
        top = within[name][:1]
        if splits and (not top or top[0] not in splits or top in unlabelled):
            left[top].append(name)
        else:
            folders = within[name][len(roots.get(top, ())) :]
            entries.append(_entry(path, name, splits[top[0]] if splits else "", folders))
    entries = _named(entries, called)
    inner = [(*above, *root) for root in roots.values()] or [above]
    there = [_folders(name) for name in found.folders]
    lost = _lost(there, set(places.values()), inner, others)
    return Listing(
        in_order(entries),
        (
            *others,
            *(Passed(name, _why_left(top, unlabelled)) for top in left for name in left[top]),
        ),
        tuple(lost),
        tuple(_say_left(top, names, unlabelled) for top, names in left.items()),
        (*_merged(splits, unlabelled), *_remarks(found.pictures, entries)),
    )


def _folders(name: str) -> Folders:
    """Return the parts of a path, in Unicode's composed form."""
    return tuple(normal(name).split("/"))


def _roots(
    places: Iterable[Folders], splits: Mapping[str, str]
) -> tuple[dict[Folders, Folders], set[Folders]]:
    """Return where the classes of each split begin, and the splits that have none.

    A split whose pictures all lie right in it has no labels, unless no other one has any either.
    """
    roots: dict[Folders, Folders] = {}
    unlabelled: set[Folders] = set()
    every = list(places)
    for top, split in splits.items():
        inside = [place[1:] for place in every if place[:1] == (top,)]
        repeated = inner_wrapper(inside, split)
        roots[(top,)] = (top, *repeated)
        if all(len(place) == len(repeated) for place in inside):
            unlabelled.add((top,))
    training = [top for top, split in splits.items() if split == "train"]
    return roots, set() if all((top,) in unlabelled for top in training) else unlabelled


def _why_left(top: Folders, unlabelled: set[Folders]) -> str:
    return "in no class" if top in unlabelled else "beside the folders of splits"


def _say_left(top: Folders, names: Sequence[str], unlabelled: set[Folders]) -> str:
    pictures = plural(len(names), "picture")
    if top in unlabelled:
        return f"{top[0]} has {pictures} in no folders of classes, so without labels"
    where = f"in {top[0]}" if top else "in no folder"
    return f"{pictures} {where}, beside the folders of splits, {_be(len(names))} in none of them"


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _merged(splits: Mapping[str, str], unlabelled: set[Folders]) -> list[str]:
    """Return a sentence for each split that several folders name."""
    tops: dict[str, list[str]] = defaultdict(list)
    for top, split in sorted(splits.items()):
        if (top,) not in unlabelled:
            tops[split].append(top)
    return [
        f"The folders {' and '.join(names)} are both taken for {split}."
        for split, names in tops.items()
        if len(names) > 1
    ]


def _remarks(pictures: Iterable[tuple[Path, str]], entries: Sequence[Entry]) -> list[str]:
    """Return sentences about names that are nearly the same."""
    forms: dict[Folders, set[str]] = defaultdict(set)
    for _, name in pictures:
        for part in name.split("/")[:-1]:
            if not part.isascii():
                forms[(normal(part),)].add(part)
    twice = [
        f"The name {name!r} is written in {len(both)} forms of Unicode. They are taken for one."
        for (name,), both in forms.items()
        if len(both) > 1
    ]
    return [*twice, *near_names(entries)]


def near_names(entries: Iterable[Entry]) -> list[str]:
    """Return sentences about classes and superclasses whose names are nearly the same."""
    labels, parents = set(), set()
    for entry in entries:
        labels.add(entry.label)
        parents.add(entry.parent)
    return [*alike_names(labels), *alike_names(parents)]


def _entry(path: Path, name: str, split: str, folders: Folders) -> Entry:
    label = folders[-1] if folders else ""
    return Entry(path, name, split, label, "/".join(folders[:-1]))


def _named(entries: Sequence[Entry], called: str) -> list[Entry]:
    """Return entries whose classes have names of their own, or say what of the shape is wrong."""
    for entry in entries:
        where = f"{called}: {entry.name}"
        if not entry.label:
            raise UserError(
                f"{where} is in no class: put each class's pictures into a folder of its name."
            )
        if "/" in entry.parent:
            raise UserError(
                f"{where} is too deep: wanted is CLASS/PICTURE or SUPERCLASS/CLASS/PICTURE, "
                "or that below train, val and test."
            )
    flat = next((entry for entry in entries if not entry.parent), None)
    nested = next((entry for entry in entries if entry.parent), None)
    if flat and nested:
        raise UserError(
            f"{called} has pictures at two depths, such as {flat.name} and {nested.name}: is "
            f"{nested.parent} a class or a superclass? Give all pictures one depth."
        )
    classes: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        classes[entry.parent].add(entry.label)
    if nested:
        refuse_alike(classes, called)
    else:
        refuse_paired(classes[""], called)
    return qualified(entries)


def qualified(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries in which a class name that two superclasses share has the superclass's too."""
    above: dict[str, set[str]] = {}
    for entry in entries:
        above.setdefault(entry.label, set()).add(entry.parent)
    return [
        entry._replace(label=f"{entry.parent}/{entry.label}")
        if len(above[entry.label]) > 1
        else entry
        for entry in entries
    ]


def _lost(
    folders: Iterable[Folders],
    filled: Iterable[Folders],
    roots: Sequence[Folders],
    passed: Sequence[Passed],
) -> list[Passed]:
    """Return the folders that stand where classes do and hold no picture in any split.

    Args:
        folders: all there are.
        filled: those that pictures lie right in.
        roots: where classes or superclasses begin.
        passed: files that are no pictures.
    """

    def within(folder: Folders) -> Folders | None:
        return next((folder[len(r) :] for r in roots if folder[: len(r)] == r), None)

    every = set(folders)
    parents = {folder[:-1] for folder in every}
    holding = {folder[:depth] for folder in filled for depth in range(len(folder) + 1)}
    known = {within(folder) for folder in holding}
    deep = max(len(inside) for folder in filled if (inside := within(folder)) is not None)
    lost = []
    for folder in in_natural_order("/".join(folder) for folder in every - holding):
        parts, why = tuple(folder.split("/")), _why_empty(f"{folder}/", passed)
        inside = within(parts)
        if inside is None:  # beside the splits: one of them, or pictures that cannot be read
            is_one = parts[:-1] in holding and (split_named(parts[-1]) or HEIC_REASON in why)
        else:
            leaf = len(inside) == deep or (len(inside) < deep and parts not in parents)
            is_one = leaf and inside not in known
        if is_one:
            lost.append(Passed(folder, why))
    return lost


def _why_empty(below: str, passed: Iterable[Passed]) -> str:
    """Return what a folder without pictures holds."""
    reasons = Counter(
        each.reason
        for each in passed
        if each.reason != HIDDEN and normal(each.name).startswith(below)
    )
    return ", ".join(f"{plural(n, 'file')}: {reason}" for reason, n in reasons.items()) or "empty"
