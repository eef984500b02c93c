"""Which of a person's own pictures are for training, for validation and for the test."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from hundredfold.data.source import Source
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import some

TEST_SHARE = 0.2
"""Of the pictures of a source that names no test split."""


def split_rows(
    source: Source, usable: Sequence[int], tell: Callable[[str], None]
) -> dict[str, list[int]]:
    """Return which entries are for training, for validation and for the test.

    Without a test split of its own, a source's validation split is the test; without that too, a
    fifth of its pictures is, as `held_by_content` says.
    """
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i in usable:
        rows[source.entries[i].split or "train"].append(i)
    if not rows["test"] and rows["validation"]:
        tell("There is no test split, so the validation pictures are the test.")
        rows["test"], rows["validation"] = rows["validation"], []
    elif not rows["test"]:
        digests = {i: source.facts[i].digest for i in rows["train"]}
        labels = {i: source.entries[i].label for i in rows["train"]}
        held = held_by_content(digests, labels)
        tell(_say_held(len(held), len(digests), unsettled(digests, labels)))
        rows["test"] = [i for i in rows["train"] if i in held]
        rows["train"] = [i for i in rows["train"] if i not in held]
    return rows


def held_by_content(digests: Mapping[int, str], labels: Mapping[int, str]) -> set[int]:
    """Return which pictures are for the test: those whose digest, as a number, is low.

    So a picture's place depends on its content alone, and copies within a class share it. A class
    that this leaves without a test picture gives that of the lowest digest; one that it leaves
    without a picture to train on keeps that of the highest. No rule can both do this and move no
    picture when others are added (a class of a single picture trains on it, whichever it is): one
    that was given or kept in this way may be replaced by one that is added, and then moves. In a
    class that has pictures of both kinds by their content alone, none ever moves.

    Args:
        digests: hex, of each picture's content.
        labels: class of each picture.
    """
    held: set[int] = set()
    for members in _by_class(labels).values():
        values = sorted({digests[i] for i in members})
        low = {value for value in values if _is_low(value)}
        low = (low | {values[0]}) - {values[-1]}  # of a single one, nothing
        held |= {i for i in members if digests[i] in low}
    return held


def unsettled(digests: Mapping[int, str], labels: Mapping[int, str]) -> list[str]:
    """Return the classes in which one picture may move when others are added, in natural order."""
    return in_natural_order(
        label
        for label, members in _by_class(labels).items()
        if len({_is_low(digests[i]) for i in members}) == 1
    )


def _is_low(digest: str) -> bool:
    """Return whether a content is for the test by itself: as likely as TEST_SHARE says."""
    return digest[:8] < f"{int(TEST_SHARE * 16**8):08x}"


def _by_class(labels: Mapping[int, str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for i, label in labels.items():
        members[label].append(i)
    return members


def _say_held(held: int, every: int, moving: Sequence[str]) -> str:
    but = f", but for one at most in each of these small classes: {some(moving)}" if moving else ""
    return (
        f"There is no test split, so {held:,} of the {every:,} pictures are it, by their content. "
        f"When pictures are added, none of these changes sides{but}."
    )
