"""`hundredfold lr-find`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from hundredfold.cli.recipe import parse, split_name
from hundredfold.config import Config
from hundredfold.console import command, console, counted
from hundredfold.data import load_data
from hundredfold.device import pick_device
from hundredfold.figures import draw_range_test, to_png
from hundredfold.files import save_file
from hundredfold.job import make_job
from hundredfold.lr_find import find_lr
from hundredfold.state import first_state


@dataclass(frozen=True)
class Options:
    """Find a learning rate: the training loss while the rate rises exponentially from 1e-6 to 10.

    Writes the curve to a picture, and suggests the rate at which the loss falls most steeply. All
    rates of a recipe rise together, in its own proportion.
    """

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration."""
    steps: int = 100
    """Steps of the whole range; it stops where the loss diverges."""
    figure: Path = Path("lr-find.png")
    """Where the curve goes."""


def main(arguments: Sequence[str]) -> None:
    """Find a learning rate for a recipe."""
    name, flags = split_name(arguments)
    options = parse(Options, "lr-find", name, flags)
    dataset = load_data(options.config.data, size=options.config.size)
    config = parse(Options, "lr-find", name, flags, len(dataset.train)).config
    job = make_job(config, dataset.with_labels(config.labels), pick_device(config.device))
    with counted(f"{config.name}: steps", options.steps) as advance:
        curve = find_lr(first_state(job), job, options.steps, advance)
    suggestion = curve.steepest
    save_file(options.figure, to_png(draw_range_test(curve.lr, curve.loss, suggestion)))
    console.print(
        f"The loss falls most steeply at {suggestion:.2g}, and is lowest at {curve.lowest:.2g}."
    )
    console.print(f"{config.name} has --lr {config.lr:g}. Curve  {options.figure}")
    console.print(f"Next   {command()} train {name} --lr {suggestion:.2g}")
