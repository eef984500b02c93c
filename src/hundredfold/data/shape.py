"""What the folders of a source are: wrappers, splits, superclasses, classes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import UserError, some

Folders = tuple[str, ...]
"""The names of the folders that a picture lies in, the outermost first."""

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating"), "validation"),
    **dict.fromkeys(("dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "pred", "predict", "prediction"), "test"),
    "predictions": "test",
}
"""Words that name a split, and the split that each stands for."""
GENERAL = {
    "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "split", "folder",
}  # fmt: skip
"""Words beside such a word that say nothing."""


def normal(name: str) -> str:
    """Return a name in Unicode's composed form, NFC, in which equal names have equal characters."""
    return unicodedata.normalize("NFC", name)


def split_named(name: str) -> tuple[str, Folders] | None:
    """Return the split that a name stands for, and the words that make it different from others.

    So `seg_train` is train and seg, and `TrainingSet` is train alone. None where no word names a
    split, or several do.
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [_base(word) for word in re.findall(r"[^\W\d_]+", apart)]
    named = [SPLITS[word] for word in words if word in SPLITS]
    rest = tuple(word for word in words if word not in SPLITS and word not in GENERAL)
    return (named[0], rest) if len(named) == 1 else None


def _base(word: str) -> str:
    """Return `test` for `testset`, and other words as they are."""
    base = re.sub("(set|data|images|imgs)$", "", word)
    return base if base in SPLITS else word


def wrapper(places: Iterable[Folders]) -> Folders:
    """Return the folders, from the outermost on, that hold nothing but one folder each.

    The last folder of a picture is never one of them: it is its class.
    """
    left, found = list(places), []
    while len({place[:1] for place in left}) == 1 and all(len(place) > 1 for place in left):
        found.append(left[0][0])
        left = [place[1:] for place in left]
    return tuple(found)


def find_splits(places: Iterable[Folders]) -> dict[str, str]:
    """Return which of the outermost folders are splits, and of what name; maybe none.

    Folders are splits where at least two of them name different ones, with the same words beside
    (`seg_train`, `seg_test`), and hold folders: of classes. So is `train` alone, unless it may as
    well be a superclass beside others. Names that are nothing but that of a split need no folders
    within them: no two classes are called train and test.

    Args:
        places: where each picture lies.
    """
    every = set(places)
    tops = {place[0] for place in every if place}
    deep = {place[0] for place in every if len(place) > 1}
    groups: dict[Folders, dict[str, str]] = defaultdict(dict)
    for top in sorted(tops):
        if named := split_named(top):
            groups[named[1]][top] = named[0]
    for rest, group in sorted(groups.items()):  # without any words beside comes first
        several = len(set(group.values())) > 1
        alone = not rest and "train" in group.values() and _is_no_superclass(group, every)
        if (several or alone) and group.keys() & deep:
            return group
    exact = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    return exact if len(set(exact.values())) > 1 else {}


def _is_no_superclass(group: Mapping[str, str], places: Iterable[Folders]) -> bool:
    """Return whether a folder train shares a class with folders beside it, or has none beside."""
    within: set[str] = set()
    beside: set[str] = set()
    for place in places:
        if len(place) > 1:
            (within if place[0] in group else beside).add(place[-1])
    return not beside or bool(within & beside)


def inner_wrapper(places: Sequence[Folders], split: str) -> Folders:
    """Return the folder that repeats the name of the split that it is in, if there is one.

    Args:
        places: where the pictures of a split lie within its folder.
        split: its name.
    """
    tops = {place[:1] for place in places}
    (top,) = tops if len(tops) == 1 else [()]
    named = split_named(top[0]) if top else None
    return top if named and named[0] == split else ()


def refuse_paired(classes: Iterable[str], called: str) -> None:
    """Refuse classes that are each split in two, such as cat_train and cat_test beside dog_train.

    Raises:
        UserError: every class is one of several splits of the same words.
    """
    groups: dict[Folders, dict[str, str]] = defaultdict(dict)
    for name in classes:
        named = split_named(name)
        if named is None:
            return
        groups[named[1]].setdefault(named[0], name)
    if len(groups) > 1 and all(len(group) > 1 for group in groups.values()):
        first, second = list(next(iter(groups.values())).values())[:2]
        raise UserError(
            f"{called}: {first} and {second} look like two splits of one class. Put the classes "
            "into folders train and test."
        )


def refuse_alike(classes: Mapping[str, set[str]], called: str) -> None:
    """Refuse superclasses that hold the same classes: they are splits, or parts, or the classes.

    Args:
        classes: the classes in each superclass.
        called: what errors call the source.

    Raises:
        UserError: no superclass has a class that the largest lacks.
    """
    largest = max(classes.values(), key=len)
    if len(classes) < 2 or not all(each <= largest for each in classes.values()):
        return
    names, shared = (some(in_natural_order(each)) for each in (classes, largest))
    raise UserError(
        f"{called}: the folders {names} hold folders of the same names ({shared}). If they are "
        "splits, call them train, val and test. If they are the classes, put their pictures right "
        "into them. If they are superclasses, say so in a table."
    )


def alike_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each group of names that differ only by case, form or spaces."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in in_natural_order(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        groups[" ".join(folded.split())].append(name)
    return [
        f"The classes {' and '.join(map(repr, group))} differ only by case, form or spaces. They "
        "are taken for different classes."
        for group in groups.values()
        if len(group) > 1
    ]
