"""Changes to an album: lists of files and folders that are renamed, so they can be undone."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hundredfold.support.errors import UserError


class Move(NamedTuple):
    """A file or a folder that was renamed."""

    before: Path
    after: Path


@dataclass
class Change:
    """A change to an album."""

    what: str
    """What was done, as in `undo adding 3 pictures to cup`."""
    moves: list[Move]
    burst: str = ""
    """Pictures with the same burst are undone together; empty for any other change."""
    added: int = 0
    """Number of pictures that were added."""
    makes_class: bool = False
    """Whether an empty class was added."""


def rename(moves: Sequence[Move]) -> None:
    """Rename files and folders in order; if one cannot be renamed, undo those before it.

    Raises:
        UserError: one cannot be renamed.
    """
    for done, (before, after) in enumerate(moves):
        try:
            after.parent.mkdir(parents=True, exist_ok=True)
            same = after.exists() and after.samefile(before)  # only letters' case differs
            if after.exists() and not same:
                raise FileExistsError(0, "the new name is taken")
            before.rename(after)
        except OSError as error:
            with suppress(OSError):
                for earlier in reversed(moves[:done]):
                    earlier.after.rename(earlier.before)
            raise UserError(f"Cannot move {before} to {after}: {error.strerror}.") from error
