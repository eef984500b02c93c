"""Format text for people: names from unknown sources, spreadsheet cells, and counts."""

import json
import re
from typing import Any

_HIDDEN = (
    r"\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters except the newline
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the text direction
    r"\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff"  # undecodable bytes
)
_NOT_IN_LINE = re.compile(rf"[{_HIDDEN}\n]")
_NOT_IN_LINES = re.compile(rf"[{_HIDDEN}]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠].", re.DOTALL)  # noqa: RUF001  # full-width signs count too
_NUMBER = re.compile(r"'*[+-]?\d+(\.\d+)?")


def printable(text: str) -> str:
    r"""Return text in one line with control characters and invisible characters escaped.

    The escapes are those of JSON, such as \u001b. Thus a name cannot clear the screen, set the
    clipboard, start another line, or reverse the order of its letters.
    """
    return _NOT_IN_LINE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Escape text as `printable` does, but keep newlines. The values in JSON stay the same."""
    return _NOT_IN_LINES.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def cell(value: Any) -> Any:
    """Return a value for a cell of a CSV file, with text that is safe for spreadsheets."""
    return escape_formula(printable(value)) if isinstance(value, str) else value


def escape_formula(text: str) -> str:
    """Put ' before text that a spreadsheet would treat as a formula.

    A number or a single sign is not a formula. `unescape_formula` restores the text.
    """
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` was given."""
    return text[1:] if text.startswith("'") and escape_formula(text[1:]) == text else text


def plural(number: float, one: str, many: str = "") -> str:
    """Return a number with a noun, such as 1 picture, 2,500 classes or 3.4 epochs.

    Args:
        number: the number.
        one: the noun in the singular.
        many: the noun in the plural; empty to add s, or es after an s.
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {one if number == 1 else many or one + ('es' if one.endswith('s') else 's')}"
