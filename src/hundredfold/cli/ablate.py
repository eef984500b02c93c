"""`hundredfold ablate`."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.cli.lookup import look_up
from hundredfold.cli.table import show_table
from hundredfold.config import FlexibleFloat
from hundredfold.data.load import load_data
from hundredfold.experiments.ablate import Outcome, ablate
from hundredfold.figures.ablation import Bar, draw_ablation
from hundredfold.figures.style import to_png
from hundredfold.metrics.scores import metric_name, top1_key
from hundredfold.recipes import RECIPES, fitted
from hundredfold.support.console import console, escape
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, save_file
from hundredfold.support.text import plural


@dataclass(frozen=True)
class AblateOptions:
    """Train a recipe without each of its parts in turn, and say what each is worth.

    Without batch norm, augmentation, residuals, weight decay, gradient clipping and label
    smoothing: those that the recipe has. All are judged on validation pictures. Called again, it
    goes on where it was interrupted.
    """

    recipe: Annotated[str, tyro.conf.Positional] = "fast"
    """What to take apart."""
    seeds: int = 1
    """Seeds 0, 1, ... of each variant; one alone may differ from another by half a point."""
    epochs: float = 0.0
    """Passes over the training pictures; the more there are, the more overfitting shows. 0 for two
    of CIFAR-100, and more of fewer pictures."""
    validation: float = 0.05
    """Share of the training pictures held out to judge all by (0..0.5)."""
    data: str = "auto"
    """As in train."""
    out: str = "ablation"
    """Folder for the runs, ablation.json and ablation.png."""
    device: str = "auto"
    """As in train."""


EPOCHS = FlexibleFloat(2.0)


def main(arguments: Sequence[str]) -> None:
    """Take a recipe apart."""
    options = tyro.cli(AblateOptions, prog="hundredfold ablate", args=arguments)
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}, but must be at least 1.")
    recipe = look_up("recipe", options.recipe, RECIPES)
    dataset = load_data(options.data)
    config = recipe(
        epochs=options.epochs or EPOCHS,
        out=options.out,
        device=options.device,
        validation=options.validation,
        validate_on="validation",
    )
    config = fitted(config, len(dataset.train))
    found: list[Outcome] = []
    for outcome in ablate(config, dataset, options.seeds):
        found.append(outcome)
        _write(found, expanded(options.out))
    what = f"{config.name}, {plural(config.epochs, 'epoch')}, n = {options.seeds}"
    title = f"Accuracy, {config.labels}: {what}"
    bars = _show(found, config.labels)
    path = expanded(options.out) / "ablation.png"
    if bars:
        save_file(path, to_png(draw_ablation(bars, title)))
        console.print(f"Figure  {escape(str(path))}")


def _write(found: Sequence[Outcome], folder: Path) -> None:
    rows = [dataclasses.asdict(outcome) | {"run": str(outcome.run)} for outcome in found]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(folder / "ablation.json", json.dumps(rows, indent=2) + "\n")


def _show(found: Sequence[Outcome], labels: str) -> list[Bar]:
    """Print a row a variant, means over the seeds that trained; return those, whole first."""
    bars, rows, metric = [], [], top1_key(labels)
    whole: float | None = None
    for part in dict.fromkeys(outcome.without for outcome in found):
        seeds = [outcome for outcome in found if outcome.without == part]
        trained = [outcome for outcome in seeds if not outcome.failure]
        name, count = f"without {part}" if part else "whole", f"{len(trained)} of {len(seeds)}"
        if not trained:
            rows.append([name, count, "-", "-", "-", "did not converge"])
            continue
        training = statistics.mean(outcome.training[metric] for outcome in trained)
        values = [outcome.validation[metric] for outcome in trained]
        validation = statistics.mean(values)
        whole = validation if not part else whole
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        against = f"{100 * (validation - whole):+.2f}" if part and whole is not None else ""
        gap = f"{100 * (training - validation):.2f}"
        shares = [f"{100 * training:.2f}", f"{100 * validation:.2f}{spread}"]
        rows.append([name, count, *shares, gap, against])
        bars.append(Bar(name, training, validation))
    head = ["seeds", "training", "validation", "gap", "against whole"]
    show_table([f"{metric_name(metric)}, in %", *head], rows)
    return bars
