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
from hundredfold.config import Config
from hundredfold.data.load import load_to_train
from hundredfold.experiments.tune import MIN_TRIALS, Trial, TuningResult, search_space, tune
from hundredfold.figures.style import to_png
from hundredfold.figures.tuning import draw_tuning
from hundredfold.metrics.scores import format_metric, metric_name, top1_key
from hundredfold.support.console import command, console, escape, make_table
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.jsonio import to_json
from hundredfold.support.text import cell
from hundredfold.training.fitting import fitted
from hundredfold.training.train import explained_memory


@dataclass(frozen=True)
class TuneOptions:
    """Search for better values of a recipe, judged by the accuracy on the validation pictures.

    To continue a search, run the same command again. Processes that use the same --storage share
    the trials.
    """

    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    """The configuration."""
    trials: int = 20
    """Total number of trials."""
    trial_epochs: float = 0.0
    """Number of passes over the training pictures in each trial; 0 for the value of --epochs."""
    vary: tuple[str, ...] = ()
    """Fields to vary. lr, muon_lr and weight_decay vary around the recipe's own value;
    label_smoothing, warmup and pad vary in a fixed range. Empty for lr, muon_lr and
    weight_decay."""
    storage: str = ""
    """Optuna's storage, such as sqlite:///tune.db or the address of a database server. Empty for
    tuning.db in the folder --to."""
    to: Path = Path("tuning")
    """Folder for best.json, trials.csv and tuning.png."""


def main(arguments: Sequence[str]) -> None:
    """Search for better values of a recipe."""
    name, flags = split_name(arguments)
    options = parse(TuneOptions, "tune", name, flags)
    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}, but must be at least 1.")
    config = options.config
    config, dataset = load_to_train(config)
    config = fitted(config, len(dataset.train))
    dataset, folder = dataset.with_labels(config.labels), make_folder(expanded(options.to))
    space = search_space(config, options.vary)
    trial_config = dataclasses.replace(config, epochs=options.trial_epochs or config.epochs)
    storage = options.storage or f"sqlite:///{folder / 'tuning.db'}"
    for field_name, search in space.items():
        console.print(f"{field_name}: {search.low:.3g} to {search.high:.3g}, {search.kind}")
    show = partial(_show, labels=config.labels)
    with explained_memory(trial_config):
        result = tune(trial_config, dataset, space, options.trials, storage, show)
    best = dataclasses.replace(result.best, epochs=config.epochs)
    save_file(folder / "best.json", to_json(best))
    save_file(folder / "trials.csv", _csv(result))
    points = {
        state: [
            (trial.number, trial.accuracy)
            for trial in result.trials
            if trial.state == state and trial.accuracy is not None
        ]
        for state in ("complete", "pruned")
    }
    figure = draw_tuning(points["complete"], points["pruned"], result.importance, config.labels)
    save_file(folder / "tuning.png", to_png(figure))
    _summary(result, set(space), folder)


def _show(trial: Trial, labels: str) -> None:
    values = "  ".join(f"{name} {value:.3g}" for name, value in trial.values.items())
    reached = "diverged"
    if trial.accuracy is not None:
        reached = f"{format_metric(top1_key(labels), trial.accuracy)} {labels}"
    console.print(f"trial {trial.number}: {reached}  {values}  {trial.state}")


def _csv(result: TuningResult) -> str:
    names = sorted({name for trial in result.trials for name in trial.values})
    writer = csv.writer(out := io.StringIO())
    writer.writerow(map(cell, ["trial", "state", f"validation_{result.metric}", *names]))
    for trial in result.trials:
        values = [trial.values.get(name, "") for name in names]
        row = [trial.number, trial.state, trial.accuracy, *values]
        writer.writerow(map(cell, row))
    return out.getvalue()


def _summary(result: TuningResult, names: set[str], folder: Path) -> None:
    complete = (trial for trial in result.trials if trial.state == "complete")
    best = max(complete, key=lambda trial: trial.accuracy or 0)
    reached = f"{format_metric(result.metric, best.accuracy or 0)} {metric_name(result.metric)}"
    shares = {name: f"{share:.0%}" for name, share in result.importance.items()}
    rows = [[name, f"{best.values[name]:.4g}", shares.get(name, "-")] for name in sorted(names)]
    console.print(
        make_table([f"best: trial {best.number}, {reached}", "value", "importance"], rows)
    )
    if not shares:
        console.print(
            f"Importances are not known: fewer than {MIN_TRIALS} trials are complete, or all "
            "reached the same accuracy."
        )
    console.print(f"Figure  {escape(str(folder / 'tuning.png'))}")
    console.print(escape(f"Next    {command()} train {shlex.quote(str(folder / 'best.json'))}"))
