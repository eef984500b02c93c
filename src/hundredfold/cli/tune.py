"""`hundredfold tune`."""

import csv
import dataclasses
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from hundredfold.cli.recipe import parse, split_name
from hundredfold.cli.table import show_table
from hundredfold.config import Config
from hundredfold.data.load import load_data
from hundredfold.experiments.tune import FEWEST, Outcome, Tuning, search_space, tune
from hundredfold.figures.style import to_png
from hundredfold.figures.tuning import draw_tuning
from hundredfold.metrics.scores import format_metric, metric_name, top1_key
from hundredfold.recipes import fitted
from hundredfold.support.console import command, console, escape
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.jsonio import to_json
from hundredfold.support.text import cell
from hundredfold.training.train import explained_memory


@dataclass(frozen=True)
class TuneOptions:
    """Search for better values of a recipe, judged by the validation pictures.

    Called again it goes on where it was; in several processes at once they share the trials.
    """

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration."""
    trials: int = 20
    """How many in all."""
    trial_epochs: float = 0.0
    """Passes over the training pictures in each trial; 0 for --epochs."""
    vary: tuple[str, ...] = ()
    """Fields to vary: of lr, muon_lr, weight_decay (around the recipe's own), label_smoothing,
    warmup, pad; empty for the first three."""
    storage: str = ""
    """Optuna's storage, such as sqlite:///tune.db or a database server's address; empty for
    tuning.db in the folder --to."""
    to: Path = Path("tuning")
    """Folder for best.json, trials.csv and tuning.png."""


def main(arguments: Sequence[str]) -> None:
    """Search."""
    name, flags = split_name(arguments)
    options = parse(TuneOptions, "tune", name, flags)
    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}, but must be at least 1.")
    config = options.config
    dataset = load_data(config.data, size=config.size, strict=config.strict)
    config = fitted(config, len(dataset.train))
    dataset, folder = dataset.with_labels(config.labels), make_folder(expanded(options.to))
    space = search_space(config, options.vary)
    each = dataclasses.replace(config, epochs=options.trial_epochs or config.epochs)
    storage = options.storage or f"sqlite:///{folder / 'tuning.db'}"
    for field_name, place in space.items():
        console.print(f"{field_name}: {place.low:.3g} to {place.high:.3g}, {place.kind}")
    show = partial(_show, labels=config.labels)
    with explained_memory(each):
        found = tune(each, dataset, space, options.trials, storage, show)
    best = dataclasses.replace(found.best, epochs=config.epochs)
    save_file(folder / "best.json", to_json(best))
    save_file(folder / "trials.csv", _csv(found))
    points = {
        state: [
            (o.number, o.accuracy)
            for o in found.outcomes
            if o.state == state and o.accuracy is not None
        ]
        for state in ("complete", "pruned")
    }
    figure = draw_tuning(points["complete"], points["pruned"], found.importance, config.labels)
    save_file(folder / "tuning.png", to_png(figure))
    _summary(found, set(space), folder)


def _show(outcome: Outcome, labels: str) -> None:
    values = "  ".join(f"{name} {value:.3g}" for name, value in outcome.values.items())
    reached = "diverged"
    if outcome.accuracy is not None:
        reached = f"{format_metric(top1_key(labels), outcome.accuracy)} {labels}"
    console.print(f"trial {outcome.number}: {reached}  {values}  {outcome.state}")


def _csv(found: Tuning) -> str:
    names = sorted({name for outcome in found.outcomes for name in outcome.values})
    writer = csv.writer(out := io.StringIO())
    writer.writerow(map(cell, ["trial", "state", f"validation_{found.metric}", *names]))
    for outcome in found.outcomes:
        values = [outcome.values.get(name, "") for name in names]
        row = [outcome.number, outcome.state, outcome.accuracy, *values]
        writer.writerow(map(cell, row))
    return out.getvalue()


def _summary(found: Tuning, names: set[str], folder: Path) -> None:
    best = max((o for o in found.outcomes if o.state == "complete"), key=lambda o: o.accuracy or 0)
    reached = f"{format_metric(found.metric, best.accuracy or 0)} {metric_name(found.metric)}"
    shares = {name: f"{share:.0%}" for name, share in found.importance.items()}
    rows = [[name, f"{best.values[name]:.4g}", shares.get(name, "-")] for name in sorted(names)]
    show_table([f"best: trial {best.number}, {reached}", "value", "importance"], rows)
    if not shares:
        console.print(
            f"Importances are not known: fewer than {FEWEST} trials came to their end, or all "
            "reached the same."
        )
    console.print(f"Figure  {escape(str(folder / 'tuning.png'))}")
    console.print(escape(f"Next    {command()} train {shlex.quote(str(folder / 'best.json'))}"))
