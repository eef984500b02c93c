"""The configuration that a command line begins with: a recipe's, or a file's."""

from collections.abc import Sequence
from typing import TypeVar

import tyro

from hundredfold.cli.choose import choose
from hundredfold.config import Config
from hundredfold.recipes import RECIPES
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.jsonio import from_json

T = TypeVar("T")


def split_name(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the recipe that comes first, `fast` where none does, and the flags after it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return "fast", arguments


def named_config(name: str) -> Config:
    """Return a recipe's configuration, or a file's as it is.

    Args:
        name: of a recipe, or a file such as a run's config.json.

    Raises:
        UserError: there is no such recipe or file, or the file is damaged.
    """
    if not name.endswith(".json"):
        return choose("recipe", name, RECIPES)()
    try:
        text = expanded(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the configuration {name}: {error}.") from error
    return from_json(Config, text, name)


def parse(options: type[T], verb: str, name: str, flags: Sequence[str]) -> T:
    """Return a command's options: a recipe's configuration, and what the flags change.

    --help exits here.

    Args:
        options: the command's dataclass, the configuration its first field.
        verb: the command.
        name: of the recipe or file, as in `named_config`.
        flags: what comes after it.
    """
    recipe = RECIPES.get(name)
    about = (recipe.__doc__ if recipe else None) or f"The configuration in {name}."
    about = about.partition("Examples:")[0]
    default = options(named_config(name))  # type: ignore[call-arg]
    return tyro.cli(
        options,
        prog=f"hundredfold {verb} {name}",
        description=about if verb == "train" else options.__doc__,
        default=default,
        args=flags,
    )
