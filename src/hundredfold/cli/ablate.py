"""`hundredfold ablate`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import tyro

from hundredfold.cli.lookup import look_up
from hundredfold.config import FlexibleFloat
from hundredfold.data.load import load_to_train
from hundredfold.experiments.ablate import (
    AblationResult,
    VariantSummary,
    ablate,
    summarize,
    variant_name,
)
from hundredfold.figures.ablation import VariantAccuracy, draw_ablation
from hundredfold.figures.style import to_png
from hundredfold.metrics.scores import format_points, metric_name, top1_key
from hundredfold.recipes import RECIPES
from hundredfold.support.console import console, escape, make_table
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, save_file
from hundredfold.support.text import plural
from hundredfold.training.fitting import fitted


@dataclass(frozen=True)
class AblateOptions:
    """Train a recipe without each of its parts in turn, and compare the accuracies.

    The parts are batch norm, augmentation, residuals, weight decay, gradient clipping, label
    smoothing and lookahead. Parts that the recipe does not have are skipped. All variants are
    judged on validation pictures. To continue after an interruption, run the same command again.
    """

    recipe: Annotated[str, tyro.conf.Positional] = "fast"
    """Name of the recipe."""
    seeds: int = 1
    """Number of seeds (0, 1, ...) with which each variant is trained. The accuracies of two seeds
    may differ by half a percentage point."""
    epochs: float = 0.0
    """Number of passes over the training pictures; more passes show more overfitting. 0 chooses two
    passes for CIFAR-100, and more for smaller sets of pictures."""
    validation: float = 0.05
    """Share of the training pictures held out to judge all variants (0..0.5)."""
    data: str = "auto"
    """The data, as in train."""
    out: str = "ablation"
    """Folder for the runs, ablation.json and ablation.png."""
    device: str = "auto"
    """The device, as in train."""


EPOCHS = FlexibleFloat(2.0)


def main(arguments: Sequence[str]) -> None:
    """Train a recipe without each of its parts."""
    options = tyro.cli(AblateOptions, prog="hundredfold ablate", args=arguments)
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}, but must be at least 1.")
    recipe = look_up("recipe", options.recipe, RECIPES)
    epochs = options.epochs or (EPOCHS if recipe().epochs else 0.0)  # `probe` has none
    config = recipe(
        data=options.data,
        epochs=epochs,
        out=options.out,
        device=options.device,
        validation=options.validation,
        validate_on="validation",
    )
    config, dataset = load_to_train(config)
    config = fitted(config, len(dataset.train))
    results: list[AblationResult] = []
    for result in ablate(config, dataset, options.seeds):
        results.append(result)
        _save(results, expanded(options.out))
    metric = top1_key(config.labels)
    summaries = summarize(results, metric)
    _show(summaries, metric_name(metric))
    means = [
        VariantAccuracy(variant_name(s.without), mean(s.training), mean(s.validation))
        for s in summaries
        if s.training
    ]
    path = expanded(options.out) / "ablation.png"
    if means:
        seeds = f"{config.name}, {plural(config.epochs, 'epoch')}, n = {options.seeds}"
        title = f"Accuracy, {config.labels}: {seeds}"
        save_file(path, to_png(draw_ablation(means, title, _reference(summaries))))
        console.print(f"Figure  {escape(str(path))}")


def _save(results: Sequence[AblationResult], folder: Path) -> None:
    rows = [
        dataclasses.asdict(result) | {"run": None if result.failure else str(result.run)}
        for result in results
    ]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(folder / "ablation.json", json.dumps(rows, indent=2) + "\n")


def _reference(summaries: Sequence[VariantSummary]) -> float | None:
    """Return the mean validation accuracy of the full recipe; None if its training failed."""
    full = next(summary for summary in summaries if not summary.without)
    return mean(full.validation) if full.validation else None


def _show(summaries: Sequence[VariantSummary], metric: str) -> None:
    """Print a row for each variant: means in per cent over the seeds that trained."""
    rows, reference = [], _reference(summaries)
    for summary in summaries:
        name, values = variant_name(summary.without), summary.validation
        count = f"{len(values)} of {summary.seeds}"
        if not values:
            rows.append([name, count, "-", "-", "-", "did not converge"])
            continue
        training, validation = mean(summary.training), mean(values)
        spread = f" ± {format_points(stdev(values))}" if len(values) > 1 else ""
        difference = ""
        if summary.without and reference is not None:
            difference = format_points(validation - reference, sign="+")
        accuracies = [format_points(training), format_points(validation) + spread]
        gap = format_points(training - validation)
        rows.append([name, count, *accuracies, gap, difference])
    head = ["seeds", "training", "validation", "gap", "against full recipe"]
    console.print(make_table([f"{metric}, in %", *head], rows))
