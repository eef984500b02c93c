"""Parse the flags of the commands that begin with a recipe or a configuration file."""

from collections.abc import Sequence
from typing import TypeVar

import tyro

from hundredfold.cli.lookup import look_up
from hundredfold.config import Config, config_from_json
from hundredfold.recipes import RECIPES
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded

T = TypeVar("T")


def split_name(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the recipe or file that comes first (default `fast`), and the flags after it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return "fast", arguments


def named_config(name: str) -> Config:
    """Return the configuration of a recipe, or the one in a file.

    Args:
        name: name of a recipe, or path of a file such as a run's config.json.

    Raises:
        UserError: the recipe or file does not exist, or the file is damaged.
    """
    if not name.endswith(".json"):
        return look_up("recipe", name, RECIPES)()
    try:
        text = expanded(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the configuration {name}: {error}.") from error
    return config_from_json(text, name)


def parse(options: type[T], verb: str, name: str, flags: Sequence[str]) -> T:
    """Return the options of a command: the configuration of a recipe, changed by the flags.

    With --help, print the help and exit.

    Args:
        options: the dataclass of the options; its first field is the configuration.
        verb: the command.
        name: the recipe or file, as in `named_config`.
        flags: the flags after the name.
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
