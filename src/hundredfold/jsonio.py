"""Flat dataclasses to JSON and back, each value checked against its field's type."""

import dataclasses
import json
import typing
from typing import Any, Literal, TypeVar

from hundredfold.errors import UserError

T = TypeVar("T")
LARGEST = 2**53
"""Up to which a whole number is a float, too, to the digit."""


def to_json(value: Any) -> str:
    """Return a flat dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(value), indent=2, ensure_ascii=False) + "\n"


def parse_object(text: str, name: str) -> dict[str, Any]:
    """Return a JSON object; `name` is what to call it in an error.

    Raises:
        UserError: the text is no JSON object.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is not a JSON object.")
    return values


def from_json(kind: type[T], text: str, name: str) -> T:
    """Return the dataclass that `to_json` wrote.

    Args:
        kind: a dataclass of int, float, str, bool, Literal, tuple[..., ...], list[...] and
            dict[str, ...] fields.
        text: JSON.
        name: what to call it in an error, such as its file's path.

    Raises:
        UserError: no JSON object; a field is missing, unknown or of the wrong type.
    """
    return from_values(kind, parse_object(text, name), name)


def from_values(kind: type[T], values: Any, name: str) -> T:
    """Return the dataclass of these values, as `from_json` does of a text that has them."""
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
