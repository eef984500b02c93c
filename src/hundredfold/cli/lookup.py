"""Look up a name that the user typed."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from hundredfold.support.errors import UserError

T = TypeVar("T")


def look_up(kind: str, name: str, choices: Mapping[str, T]) -> T:
    """Return the choice with a name.

    Raises:
        UserError: there is no such choice; the message lists the choices, and suggests a close one.
    """
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"There is no {kind} {name!r}. Choose from: {', '.join(choices)}.{hint}")
