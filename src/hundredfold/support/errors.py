"""Exceptions for the user, and helpers for their texts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


MAX_WORD = 300
"""Maximum number of characters of a word in an error."""


class UserError(Exception):
    """Wrong use or bad input, which the user can correct.

    The text says what is wrong, which file or value it concerns, and what to do. The command line
    prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return brief(super().__str__())


class DamagedError(UserError):
    """A run whose files are not what training wrote."""


class DamagedFileError(UserError):
    """A file of pictures or labels that is damaged."""


class UnavailableError(UserError):
    """Data that cannot be downloaded: no network, no server, or no credentials."""


class CheckFailed(Exception):  # noqa: N818  # no error of the program or of its use
    """A check that the user asked for has failed, such as a strict audit: exit code 1."""


class DivergedError(UserError):
    """Training whose loss is no longer finite.

    Args:
        text: what happened, and what to do.
        batch: pictures (B, 3, H, W) uint8 and labels (B,) or (B, C) of the step; may be empty.
    """

    def __init__(self, text: str, batch: Sequence["Tensor"] = ()) -> None:
        super().__init__(text)
        self.batch = batch


@contextmanager
def extra(name: str, needed: str) -> Iterator[None]:
    """Explain how to install the extra that an import within the block needs.

    Args:
        name: name of the extra.
        needed: start of the sentence, such as `MLflow needs`.

    Raises:
        UserError: instead of an ImportError.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{needed} additional packages. To install them: pip install 'hundredfold[{name}]'"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, as libraries may write pages."""
    return (str(error).splitlines() or [""])[0]


def brief(text: str) -> str:
    """Return a text with every very long word, such as a value, shortened."""
    return re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda match: shortened(match[0], MAX_WORD), text)


def shortened(text: str, limit: int = 60) -> str:
    """Return a text without its middle if it is longer than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 9]} ... {text[-4:]}"


def first_few(texts: Iterable[str], limit: int = 5) -> str:
    """Return the first few texts, separated by commas, and the number of the others."""
    texts = list(texts)
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more
