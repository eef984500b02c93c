"""Interpret folder names: wrappers, splits, superclasses, and classes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import UserError, first_few

Folders = tuple[str, ...]
"""Names of the folders that contain a picture, outermost first."""

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating"), "validation"),
    **dict.fromkeys(("dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "pred", "predict", "prediction"), "test"),
    "predictions": "test",
}
"""The split that each word stands for."""
FILLERS = {
    "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "split", "folder",
}  # fmt: skip
"""Words without a meaning of their own in the name of a split."""


def to_nfc(name: str) -> str:
    """Return a name in Unicode's composed form, NFC, so that equal names have equal characters."""
    return unicodedata.normalize("NFC", name)


def parse_split_name(name: str) -> tuple[str, Folders] | None:
    """Return the split that a folder name stands for, and the other words in the name.

    For example, `seg_train` gives ("train", ("seg",)) and `TrainingSet` gives ("train", ()). Return
    None if no word, or more than one word, stands for a split.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [_without_filler(word) for word in re.findall(r"[^\W\d_]+", spaced)]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    others = tuple(word for word in words if word not in SPLITS and word not in FILLERS)
    return (splits[0], others) if len(splits) == 1 else None


def _without_filler(word: str) -> str:
    """Return `test` for `testset`, and other words unchanged."""
    base = re.sub("(set|data|images|imgs)$", "", word)
    return base if base in SPLITS else word


def find_wrapper(places: Iterable[Folders]) -> Folders:
    """Return the outermost folders that contain nothing but one folder each.

    The innermost folder of a picture is never one of them, as it is the picture's class.
    """
    rest, wrapper = list(places), []
    while len({place[:1] for place in rest}) == 1 and all(len(place) > 1 for place in rest):
        wrapper.append(rest[0][0])
        rest = [place[1:] for place in rest]
    return tuple(wrapper)


def find_splits(places: Iterable[Folders]) -> dict[str, str]:
    """Return the split of each outermost folder that is one; empty if there are no splits.

    Folders are splits if at least two of them stand for different splits, have the same other words
    (`seg_train`, `seg_test`), and contain folders, which are the classes. A folder `train` alone is
    a split too, unless it could as well be a superclass beside others. Folders whose whole name is
    a split word need not contain folders, since nobody has two classes called train and test.

    Args:
        places: folders of each picture.
    """
    distinct = set(places)
    tops = {place[0] for place in distinct if place}
    with_folders = {place[0] for place in distinct if len(place) > 1}
    groups: dict[Folders, dict[str, str]] = defaultdict(dict)
    for top in sorted(tops):
        if parsed := parse_split_name(top):
            groups[parsed[1]][top] = parsed[0]
    for others, group in sorted(groups.items()):  # the group without other words comes first
        several = len(set(group.values())) > 1
        only_train = not others and "train" in group.values() and _is_no_superclass(group, distinct)
        if (several or only_train) and group.keys() & with_folders:
            return group
    exact = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    return exact if len(set(exact.values())) > 1 else {}


def _is_no_superclass(group: Mapping[str, str], places: Iterable[Folders]) -> bool:
    """Return whether a folder train shares a class with the folders beside it, or stands alone."""
    inside: set[str] = set()
    beside: set[str] = set()
    for place in places:
        if len(place) > 1:
            (inside if place[0] in group else beside).add(place[-1])
    return not beside or bool(inside & beside)


def find_repeated_split(places: Sequence[Folders], split: str) -> Folders:
    """Return the folder in a split's folder that repeats its name, as in `train/train`; or ().

    Args:
        places: folders of each picture within the split's folder.
        split: name of the split.
    """
    tops = {place[:1] for place in places}
    (top,) = tops if len(tops) == 1 else [()]
    parsed = parse_split_name(top[0]) if top else None
    return top if parsed and parsed[0] == split else ()


def refuse_split_classes(classes: Iterable[str], source: str) -> None:
    """Refuse classes that are each divided by split, such as cat_train, cat_test and dog_train.

    Raises:
        UserError: every class name stands for a split, and several splits share their other words.
    """
    groups: dict[Folders, dict[str, str]] = defaultdict(dict)
    for name in classes:
        parsed = parse_split_name(name)
        if parsed is None:
            return
        groups[parsed[1]].setdefault(parsed[0], name)
    if len(groups) > 1 and all(len(group) > 1 for group in groups.values()):
        first, second = list(next(iter(groups.values())).values())[:2]
        raise UserError(
            f"{source}: {first} and {second} look like two splits of one class. Put the classes "
            "into folders train and test."
        )


def refuse_shared_classes(classes: Mapping[str, set[str]], source: str) -> None:
    """Refuse superclasses with the same classes, which may be splits, parts, or the real classes.

    Args:
        classes: the classes in each superclass.
        source: name of the source in errors.

    Raises:
        UserError: no superclass has a class that the largest superclass lacks.
    """
    largest = max(classes.values(), key=len)
    if len(classes) < 2 or not all(names <= largest for names in classes.values()):
        return
    folders, shared = (first_few(in_natural_order(names)) for names in (classes, largest))
    raise UserError(
        f"{source}: the folders {folders} contain folders with the same names ({shared}). If they "
        "are splits, name them train, val and test. If they are the classes, put their pictures "
        "directly into them. If they are superclasses, use a table with a superclass column."
    )


def describe_similar_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each group of names that differ only in case, form or spaces."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in in_natural_order(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        groups[" ".join(folded.split())].append(name)
    return [
        f"The classes {' and '.join(map(repr, group))} differ only in case, form or spaces. They "
        "are treated as different classes."
        for group in groups.values()
        if len(group) > 1
    ]


def describe_unicode_forms(paths: Iterable[str]) -> list[str]:
    """Return a sentence for each folder name in paths that is written in several Unicode forms."""
    forms: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        for folder in path.split("/")[:-1]:
            if not folder.isascii():
                forms[to_nfc(folder)].add(folder)
    return [
        f"The name {name!r} is written in {len(variants)} forms of Unicode. They are treated as "
        "one name."
        for name, variants in forms.items()
        if len(variants) > 1
    ]
