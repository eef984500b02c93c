"""`hundredfold lr-find`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from hundredfold.cli.recipe import parse, split_name
from hundredfold.config import Config
from hundredfold.data.load import load_to_train
from hundredfold.experiments.lr_find import find_lr
from hundredfold.figures.style import to_png
from hundredfold.figures.training import draw_range_test
from hundredfold.support.console import command, console, counted, escape
from hundredfold.support.device import pick_device
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state
from hundredfold.training.train import explained_memory


@dataclass(frozen=True)
class LrFindOptions:
    """Find a learning rate: measure the training loss while the rate rises from 1e-6 to 10.

    The rate rises exponentially. The command draws the curve and suggests the rate at which the
    loss falls most steeply. All learning rates of a recipe rise in the same proportion.
    """

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration."""
    steps: int = 100
    """Number of steps from the lowest to the highest rate, at least 10. The test stops early if the
    loss diverges."""
    figure: Path = Path("lr-find.png")
    """PNG file into which the curve is drawn."""


def main(arguments: Sequence[str]) -> None:
    """Find a learning rate for a recipe."""
    name, flags = split_name(arguments)
    options = parse(LrFindOptions, "lr-find", name, flags)
    config = options.config
    figure = expanded(options.figure)
    make_folder(figure.parent)
    config, dataset = load_to_train(config)
    with (
        explained_memory(config),
        counted(f"{config.name}: steps", options.steps) as advance,
    ):
        setup = make_setup(config, dataset.with_labels(config.labels), pick_device(config.device))
        config = setup.config
        curve = find_lr(first_state(setup), setup, options.steps, advance)
    suggestion = curve.steepest
    save_file(figure, to_png(draw_range_test(curve.lr, curve.loss, suggestion)))
    console.print(
        f"The loss falls most steeply at {suggestion:.2g}, and is lowest at {curve.lowest:.2g}."
    )
    console.print(escape(f"At present, {config.name} has{_rate_flags(config, config.lr)}."))
    console.print(escape(f"Figure  {options.figure}"))
    others = ", with the other flags that you gave here" if flags else ""
    train = f"{command()} train {shlex.quote(name)}{_rate_flags(config, suggestion)}{others}"
    console.print(escape(f"Next    {train}"))


def _rate_flags(config: Config, lr: float) -> str:
    """Return the flags that set a learning rate, with that of muon in the same proportion."""
    muon = f" --muon-lr {config.muon_lr * lr / config.lr:.3g}" if config.optimizer == "muon" else ""
    return f" --lr {lr:.3g}{muon}"
