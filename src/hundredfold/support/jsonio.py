"""Convert flat dataclasses to JSON and back, and check each value against its field's type."""

import dataclasses
import json
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from hundredfold.support.errors import UserError

T = TypeVar("T")
LARGEST = 2**53
"""Largest integer up to which a float represents every integer exactly."""
LONGEST_NUMBER = 20
"""Maximum number of characters of a number that an error shows."""


def as_json(values: Mapping[str, Any]) -> str:
    """Return a mapping of JSON values as indented JSON."""
    return json.dumps(values, indent=2) + "\n"


def to_json(value: Any) -> str:
    """Return a flat dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(value), indent=2, ensure_ascii=False) + "\n"


def parse_object(text: str, name: str) -> dict[str, Any]:
    """Return a JSON object. `name` names it in errors.

    Raises:
        UserError: the text is not a JSON object, has a key twice, or has a number that is not
            finite or an integer beyond LARGEST.
    """
    try:
        values = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_number,
            parse_float=_finite,
            parse_int=_exact,
        )
    except RecursionError as error:
        raise UserError(f"{name} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is not a JSON object.")
    return values


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"it has {key!r} twice")
        values[key] = value
    return values


def _refuse_number(text: str) -> NoReturn:
    shown = text if len(text) <= LONGEST_NUMBER else f"{text[:LONGEST_NUMBER]}..."
    raise ValueError(f"the number {shown} is not finite or is too large")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse_number(text)


def _exact(text: str) -> int:
    if len(text) > LONGEST_NUMBER or abs(int(text)) > LARGEST:
        _refuse_number(text)
    return int(text)


def from_json(kind: type[T], text: str, name: str) -> T:
    """Return the dataclass that `to_json` wrote.

    Args:
        kind: a dataclass with fields of int, float, str, bool, Literal, tuple[..., ...], list[...]
            and dict[str, ...].
        text: JSON.
        name: name of the text in errors, such as the path of its file.

    Raises:
        UserError: the text is not a JSON object, or a field is missing, unknown or of the wrong
            type.
    """
    return from_values(kind, parse_object(text, name), name)


def from_values(kind: type[T], values: Any, name: str) -> T:
    """Return the dataclass of parsed JSON values, as `from_json` does for a text."""
    if not isinstance(values, dict):
        raise UserError(f"{name} is not a JSON object.")
    types = typing.get_type_hints(kind)
    if unknown := sorted(values.keys() - types.keys()):
        raise UserError(f"{name} has fields that this version does not know: {', '.join(unknown)}.")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # a dataclass, by contract
    needed = {
        field.name
        for field in fields
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(needed - values.keys()):
        raise UserError(f"{name} lacks the fields {', '.join(missing)}.")
    checked = {}
    for key, value in values.items():
        if not _fits(value, types[key]):
            raise UserError(f"{name} has a bad value for {key}: {value!r}.")
        checked[key] = _cast(value, types[key])
    try:
        return kind(**checked)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) in (tuple, list):
        item = typing.get_args(kind)[0]
        return isinstance(value, list) and all(_fits(entry, item) for entry in value)
    if typing.get_origin(kind) is dict:
        item = typing.get_args(kind)[1]
        return isinstance(value, dict) and all(_fits(entry, item) for entry in value.values())
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= LARGEST)
    return type(value) is kind


def _cast(value: Any, kind: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, list):
        return origin(_cast(entry, inner[0]) for entry in value)
    if origin is dict:
        return {key: _cast(entry, inner[1]) for key, entry in value.items()}
    return float(value) if kind is float else value
