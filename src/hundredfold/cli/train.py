"""`hundredfold train`."""

import time
from collections.abc import Sequence

import tyro

from hundredfold.budget import choose_recipe
from hundredfold.cli.choose import choose
from hundredfold.config import Config
from hundredfold.data import load_data
from hundredfold.recipes import CIFAR_PICTURES, RECIPES, fitted
from hundredfold.train import train


def main(arguments: Sequence[str]) -> None:
    """Train a recipe: its values, for as many pictures as there are, are the flags' defaults."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name, flags = (arguments[0], arguments[1:]) if named else ("fast", arguments)
    config = parse_config(name, flags)
    dataset = load_data(config.data, size=config.size, strict=config.strict)
    pictures, started = len(dataset.train), None
    config = parse_config(name, flags, pictures)
    if config.budget and not named:
        started = time.perf_counter()  # choosing counts
        config = parse_config(choose_recipe(config, dataset), flags, pictures)
    train(config, dataset, started=started)


def parse_config(name: str, arguments: Sequence[str], pictures: int = CIFAR_PICTURES) -> Config:
    """Return a recipe's configuration with what the flags change; --help exits here."""
    recipe = choose("recipe", name, RECIPES)
    return tyro.cli(
        Config,
        prog=f"hundredfold train {name}",
        description=recipe.__doc__,
        default=fitted(recipe(), pictures),
        args=arguments,
    )
