"""Sentences about a person's own pictures."""

from collections.abc import Sequence

from hundredfold.support.errors import some


def untested(classes: Sequence[str], counts: Sequence[int]) -> str:
    """Return a sentence about the classes without test pictures; empty where there are none.

    Args:
        classes: their names.
        counts: test pictures of each.
    """
    names = [name for name, number in zip(classes, counts, strict=True) if not number]
    if not names:
        return ""
    has, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return (
        f"{len(names):,} of the {len(classes):,} classes {has} no test picture, so the accuracy "
        f"does not cover {them}: {some(names)}."
    )
