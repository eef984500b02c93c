"""The one exception that means: the user can mend this."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


MOST_WORD = 300
"""Characters of a word in an error, at most."""


class UserError(Exception):
    """Wrong use or bad input.

    Its text says what is wrong, which file or value, and what to do. The command line prints it
    without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return brief(super().__str__())


class DamagedError(UserError):
    """A run that is not, or no longer, what training wrote."""


class UnavailableError(UserError):
    """Data that would have to be fetched, and cannot be: no network, no server, no credentials."""


class FoundWrong(Exception):  # noqa: N818  # no error of the program, nor of its use
    """What an audit was asked to be strict about, or a run that is not reproduced: exit code 1."""


class DivergedError(UserError):
    """Training whose loss is no longer finite.

    Args:
        text: what happened, and what to do.
        batch: pictures (B, 3, H, W) uint8 and labels (B,) at which it was seen; may be empty.
    """

    def __init__(self, text: str, batch: Sequence["Tensor"] = ()) -> None:
        super().__init__(text)
        self.batch = batch


@contextmanager
def extra(name: str, needed: str) -> Iterator[None]:
    """Say how to install what an import within the block lacks.

    Args:
        name: of the extra.
        needed: what needs it, such as `MLflow needs`.

    Raises:
        UserError: in place of an ImportError.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{needed} an extra: pip install 'hundredfold[{name}]'.") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text: libraries write pages."""
    return (str(error).splitlines() or [""])[0]


def brief(text: str) -> str:
    """Return a text in which no word, a value say, is longer than a few lines."""
    return re.sub(rf"\S{{{MOST_WORD + 1},}}", lambda found: shortened(found[0], MOST_WORD), text)


def shortened(text: str, most: int = 60) -> str:
    """Return a text, without its middle where it is longer than a line."""
    return text if len(text) <= most else f"{text[: most - 9]} ... {text[-4:]}"


def some(texts: Iterable[str], most: int = 5) -> str:
    """Return the first few of several texts, and how many more there are."""
    every = list(texts)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
