"""`hundredfold train`."""

import time
from collections.abc import Sequence

import tyro

from hundredfold.budget import choose_recipe
from hundredfold.cli.choose import choose
from hundredfold.config import Config
from hundredfold.data import load_data
from hundredfold.recipes import RECIPES
from hundredfold.train import train


def main(arguments: Sequence[str]) -> None:
    """Train a recipe: its values are the flags' defaults."""
    if arguments and not arguments[0].startswith("-"):
        train(parse_config(arguments[0], arguments[1:]))
        return
    config = parse_config("fast", arguments)
    if not config.budget:
        train(config)
        return
    dataset = load_data(config.data)
    started = time.perf_counter()
    name = choose_recipe(config, dataset)
    train(parse_config(name, arguments), dataset, started=started)


def parse_config(name: str, arguments: Sequence[str]) -> Config:
    """Return a recipe's configuration with what the flags change; --help exits here."""
    recipe = choose("recipe", name, RECIPES)
    return tyro.cli(
        Config,
        prog=f"hundredfold train {name}",
        description=recipe.__doc__,
        default=recipe(),
        args=arguments,
    )
