"""Read times, sizes and intervals that people write, such as 90s, 20GB or 100steps."""

import math
import re

SIZES = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
"""Bytes of each unit of a size."""
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = rf"(?:{_NUMBER} *h)? *(?:{_NUMBER} *(?:min|m))? *(?:{_NUMBER} *s)?"


def parse_interval(text: str) -> tuple[float, float]:
    """Return (seconds, steps) for a time or a number of steps; the other of the two is infinite."""
    if steps := re.fullmatch(r"(\d+) *steps?", text):
        return math.inf, float(steps[1])
    return parse_duration(text), math.inf


def parse_size(text: str) -> float:
    """Return the bytes in a size such as 0, 500MB or 1.5 GB; -1 for other texts."""
    match = re.fullmatch(rf"{_NUMBER} *({'|'.join(SIZES)})", text, re.ASCII)
    return float(match[1]) * SIZES[match[2]] if match else -1.0


def parse_duration(text: str) -> float:
    """Return the seconds in a time such as 90, 90s, 5min, 1.5h or 1h30min; 0 for other texts."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        text += "s"
    match = re.fullmatch(_DURATION, text, re.ASCII)
    numbers = match.groups(default="0") if match else ("0", "0", "0")
    seconds = sum(float(number) * unit for number, unit in zip(numbers, (3600, 60, 1), strict=True))
    return seconds if math.isfinite(seconds) else 0.0
