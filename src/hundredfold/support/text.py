"""Text for people: names that strangers chose, cells of a spreadsheet, numbers of things."""

import json
import re
from typing import Any

_HIDDEN = (
    r"\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters, but for the end of a line
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of what follows
    r"\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff"  # bytes that are no text
)
_OF_A_LINE = re.compile(rf"[{_HIDDEN}\n]")
_OF_LINES = re.compile(rf"[{_HIDDEN}]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠].", re.DOTALL)  # noqa: RUF001  # wide ones count
_NUMBER = re.compile(r"'*[+-]?\d+(\.\d+)?")


def printable(text: str) -> str:
    r"""Return text in one line without characters that a terminal obeys or that nobody sees.

    In place of each is its escape in JSON, such as \u001b: a name may not clear the screen, set the
    clipboard, begin another line or turn the order of its letters.
    """
    return _OF_A_LINE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Return text of several lines as `printable` does, JSON as JSON of the same values."""
    return _OF_LINES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def cell(value: Any) -> Any:
    """Return a value as a cell of a CSV that a spreadsheet may open: text is `quoted`."""
    return quoted(printable(value)) if isinstance(value, str) else value


def quoted(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: with ' before it where one would.

    A number is none, nor is a sign alone. `unquoted` gives the text back, whatever it is.
    """
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def unquoted(text: str) -> str:
    """Return the text that `quoted` was given."""
    return text[1:] if text.startswith("'") and quoted(text[1:]) == text else text


def plural(number: float, one: str, many: str = "") -> str:
    """Return a number of things, such as 1 picture, 2,500 classes or 3.4 epochs.

    Args:
        number: of them.
        one: what one is called.
        many: what several are called; empty for an s more, or es after an s.
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {one if number == 1 else many or one + ('es' if one.endswith('s') else 's')}"
