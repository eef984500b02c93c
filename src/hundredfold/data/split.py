"""Divide your own pictures into training, validation and test pictures."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from hundredfold.data.collection import PictureCollection
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import first_few

TEST_SHARE = 0.2
"""Share of the pictures that is held out for the test if there is no test split."""


def split_rows(
    collection: PictureCollection, usable: Sequence[int], tell: Callable[[str], None]
) -> dict[str, list[int]]:
    """Return the rows of the training, validation and test pictures.

    If there is no test split, the validation split becomes the test split. If there is neither,
    `choose_test_pictures` holds out a fifth of the pictures.

    Args:
        collection: the pictures.
        usable: rows of the pictures that can be used.
        tell: function that shows the user a sentence about the choice.
    """
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i in usable:
        rows[collection.entries[i].split or "train"].append(i)
    if not rows["test"] and rows["validation"]:
        tell("There is no test split, so the validation pictures are used as the test pictures.")
        rows["test"], rows["validation"] = rows["validation"], []
    elif not rows["test"]:
        digests = {i: collection.infos[i].digest for i in rows["train"]}
        labels = {i: collection.entries[i].label for i in rows["train"]}
        held = choose_test_pictures(digests, labels)
        tell(_describe_choice(len(held), len(digests), unstable_classes(digests, labels)))
        rows["test"] = [i for i in rows["train"] if i in held]
        rows["train"] = [i for i in rows["train"] if i not in held]
    return rows


def choose_test_pictures(digests: Mapping[int, str], labels: Mapping[int, str]) -> set[int]:
    """Return the pictures held out for the test: those with a low digest.

    The choice depends only on a picture's content, so copies within a class stay together. If a
    class would get no test picture, the one with the lowest digest is held out. If it would get no
    training picture, the one with the highest digest is not. Such a picture may move to the other
    split when pictures are added. No rule avoids that, because a class with a single picture must
    train on it. In a class that needs no such exception, no picture ever moves.

    Args:
        digests: digest of each picture's content, in hex.
        labels: class of each picture.
    """
    held: set[int] = set()
    for members in _by_class(labels).values():
        values = sorted({digests[i] for i in members})
        low = {value for value in values if _is_low(value)}
        low = (low | {values[0]}) - {values[-1]}  # empty if there is a single value
        held |= {i for i in members if digests[i] in low}
    return held


def unstable_classes(digests: Mapping[int, str], labels: Mapping[int, str]) -> list[str]:
    """Return the classes in which a picture may move between training and test."""
    return in_natural_order(
        label
        for label, members in _by_class(labels).items()
        if len({_is_low(digests[i]) for i in members}) == 1
    )


def _is_low(digest: str) -> bool:
    """Return whether a digest is in the lowest TEST_SHARE of all possible digests."""
    return digest[:8] < f"{int(TEST_SHARE * 16**8):08x}"


def _by_class(labels: Mapping[int, str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for i, label in labels.items():
        members[label].append(i)
    return members


def _describe_choice(held: int, total: int, unstable: Sequence[str]) -> str:
    names = first_few(unstable)
    but = f", except at most one in each of these small classes: {names}" if unstable else ""
    return (
        f"There is no test split, so {held:,} of the {total:,} pictures are held out for the test. "
        f"The choice depends only on their content, so adding pictures moves none of them{but}."
    )
