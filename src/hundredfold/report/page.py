"""The page."""

from typing import Any


def render(*a: Any) -> str:
    """."""
    return ""
