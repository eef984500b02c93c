"""Divide your own pictures into training, validation and test pictures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from hundredfold.data.collection import PictureCollection
from hundredfold.data.related import LARGE, RelatedPictures, find_related
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import first_few
from hundredfold.support.text import plural

TEST_SHARE = 0.2
"""Share of the pictures that is held out for the test if there is no test split."""


def split_rows(
    collection: PictureCollection, usable: Sequence[int], tell: Callable[[str], None]
) -> tuple[dict[str, list[int]], RelatedPictures]:
    """Return the rows of the training, validation and test pictures, and which belong together.

    If there is no test split, the validation split becomes the test split. If there is neither,
    `choose_test_pictures` holds out a fifth of the pictures. If all three splits are given, nothing
    is left to divide, and no picture is related to another.

    Args:
        collection: the pictures.
        usable: rows of the pictures that can be used.
        tell: function that shows the user a sentence about the choice.
    """
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i in usable:
        rows[collection.entries[i].split or "train"].append(i)
    if rows["test"] and rows["validation"]:
        tell_divided_groups(collection, rows, tell)
        return rows, RelatedPictures({})
    related = find_related(collection, rows["train"])
    if rows["validation"]:
        tell("There is no test split, so the validation pictures are used as the test pictures.")
        rows["test"], rows["validation"] = rows["validation"], []
    elif not rows["test"]:
        digests = {i: collection.infos[i].digest for i in rows["train"]}
        labels = {i: collection.entries[i].label for i in rows["train"]}
        held = choose_test_pictures(digests, labels, related.groups)
        unstable = unstable_classes(digests, labels, related.groups)
        tell(_describe_choice(len(held), len(digests), unstable, together=related.any_related))
        rows["test"] = [i for i in rows["train"] if i in held]
        rows["train"] = [i for i in rows["train"] if i not in held]
    for sentence in related.remarks:
        tell(sentence)
    tell_divided_groups(collection, rows, tell)
    return rows, related


def tell_divided_groups(
    collection: PictureCollection, rows: Mapping[str, Sequence[int]], tell: Callable[[str], None]
) -> None:
    """Say which groups of a table have pictures in several of its splits, if any."""
    splits: dict[str, set[str]] = defaultdict(set)
    for split, chosen in rows.items():
        for i in chosen:
            splits[collection.entries[i].group].add(split)
    divided = [name for name, found in splits.items() if name and len(found) > 1]
    if divided:
        tell(
            f"{plural(len(divided), 'group has', 'groups have')} pictures in several splits, so "
            f"the accuracy may be too high: {first_few(in_natural_order(divided))}."
        )


def choose_test_pictures(
    digests: Mapping[int, str], labels: Mapping[int, str], groups: Mapping[int, int]
) -> set[int]:
    """Return the pictures held out for the test: the groups with a low digest.

    The choice depends only on the pictures' content. One picture decides for its group, and every
    picture of the group is equally likely to be that one. A group with more than half of a class is
    not held out. If a class would get no training picture, the group with the highest digest trains
    too. If it would get no test picture, the one with the lowest digest is held out, unless that
    leaves a class without training pictures. Such a group may move to the other split when pictures
    are added. No rule avoids that, because a class with a single picture must train on it. In a
    class that needs no such exception, a group never moves unless a new picture joins it.

    Args:
        digests: digest of each picture's content, in hex.
        labels: class of each picture.
        groups: group of each picture: those of one group stay together.
    """
    deciding, classes = _deciding_digests(digests, groups), _groups_by_class(labels, groups)
    large = _large_groups(digests, labels, groups)
    held = {group for group, digest in deciding.items() if _is_low(digest)} - large
    for inside in classes.values():
        if inside <= held:
            held.remove(max(inside, key=deciding.__getitem__))
    for inside in classes.values():
        if inside & held:
            continue
        for group in sorted(inside, key=lambda group: (group in large, deciding[group])):
            others = (found - held for found in classes.values() if group in found)
            if all(len(training) > 1 for training in others):
                held.add(group)
                break
    return {i for i, group in groups.items() if group in held}


def unstable_classes(
    digests: Mapping[int, str], labels: Mapping[int, str], groups: Mapping[int, int]
) -> list[str]:
    """Return the classes in which a group may move when pictures of other groups are added.

    They are those that need an exception, and those that share a group with such a class.
    """
    deciding, classes = _deciding_digests(digests, groups), _groups_by_class(labels, groups)
    large = _large_groups(digests, labels, groups)
    sides = {group: _is_low(digest) and group not in large for group, digest in deciding.items()}
    moving = {group for group in large if _is_low(deciding[group])}
    for inside in classes.values():
        if len({sides[group] for group in inside}) == 1:
            moving |= inside
    grown = -1
    while grown != len(moving):  # an exception in one class may need another in the next
        grown = len(moving)
        moving.update(*(inside for inside in classes.values() if inside & moving))
    return in_natural_order(label for label, inside in classes.items() if inside & moving)


def _deciding_digests(digests: Mapping[int, str], groups: Mapping[int, int]) -> dict[int, str]:
    """Return the digest that decides for each group: the lowest if read from its end.

    Its start is then no lower than that of any other digest.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for i, group in groups.items():
        found[group].append(digests[i])
    return {group: min(values, key=lambda value: value[::-1]) for group, values in found.items()}


def _groups_by_class(labels: Mapping[int, str], groups: Mapping[int, int]) -> dict[str, set[int]]:
    """Return the groups with pictures in each class, in the order of the classes' names."""
    found: dict[str, set[int]] = {label: set() for label in sorted(set(labels.values()))}
    for i, group in groups.items():
        found[labels[i]].add(group)
    return found


def _large_groups(
    digests: Mapping[int, str], labels: Mapping[int, str], groups: Mapping[int, int]
) -> set[int]:
    """Return the groups that have more than a share LARGE of a class, beside other groups.

    Copies count once.
    """
    different = {(groups[i], label, digests[i]) for i, label in labels.items()}
    total = Counter(label for _, label, _ in different)
    inside = Counter((group, label) for group, label, _ in different)
    return {
        group
        for (group, label), count in inside.items()
        if LARGE * total[label] < count < total[label]
    }


def _is_low(digest: str) -> bool:
    """Return whether a digest is in the lowest TEST_SHARE of all possible digests."""
    return digest[:8] < f"{int(TEST_SHARE * 16**8):08x}"


def _describe_choice(held: int, total: int, unstable: Sequence[str], *, together: bool) -> str:
    names = first_few(unstable)
    but = f", except at most one in each of these classes: {names}" if unstable else ""
    related = (
        " Copies, near duplicates and pictures of one group stay on one side, so a new picture "
        "that belongs to them may move them."
    )
    return (
        f"There is no test split, so {held:,} of the {total:,} pictures are held out for the test. "
        "The choice depends only on their content: if you add a picture, all others stay in their "
        f"split{but}.{related if together else ''}"
    )
