"""One of a few names."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from hundredfold.support.errors import UserError

T = TypeVar("T")


def choose(kind: str, name: str, choices: Mapping[str, T]) -> T:
    """Return the choice of that name.

    Raises:
        UserError: there is none; names the ones there are, and a close one.
    """
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"There is no {kind} {name!r}: there is {', '.join(choices)}.{hint}")
