"""Measure the accuracy of `hundredfold train --budget`, and how well it keeps to its budget.

    python benchmarks/curve.py --budgets 10s 30s 1min 3min 10min --save
    python benchmarks/curve.py --draw benchmarks/results/DATE-curve.json

The figure also shows recipe `best`, measured by benchmarks/bench.py, and the tutorial: its epochs
on this machine, measured by benchmarks/peer.py, and the 71.75 % that the tutorial reports from
another machine.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import RESULTS, save_result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from hundredfold import load_cifar100, train
from hundredfold.recipes import RECIPES, fast
from hundredfold.support.units import parse_duration
from hundredfold.training.budget import choose_recipe

PICTURE = Path(__file__).parents[1] / "docs" / "accuracy-time.png"
TUTORIAL_ACCURACY, TUTORIAL_HOURS = 0.7175, 5.9
GREY = "#555"
FORMER = "top1"
"""Name of `fine_top1` in results from before 28 November 2026."""
TICKS = ("10s", "30s", "1min", "3min", "10min", "30min", "1h", "2h", "6h")


@dataclass(frozen=True)
class Options:
    """What to measure or to draw."""

    budgets: tuple[str, ...] = ("10s", "30s", "1min", "3min")
    """Time budgets, with one training for each."""
    seed: int = 0
    """Seed of each training."""
    save: bool = False
    """Write the result to benchmarks/results."""
    draw: Path | None = None
    """A result to draw into docs/accuracy-time.png instead of measuring."""


def measure(budget: str, seed: int) -> dict[str, Any]:
    """Train within a budget as the command line does; return the results."""
    dataset = load_cifar100()
    started = time.perf_counter()
    name = choose_recipe(fast(budget=budget), dataset)
    with tempfile.TemporaryDirectory() as out:
        config = RECIPES[name](budget=budget, seed=seed, out=out)
        run = train(config, dataset, quiet=True, started=started)
        metrics, epochs = run.metrics(), run.history()
    wanted = parse_duration(budget)
    return {
        "budget": budget,
        "recipe": name,
        "seconds": round(metrics["seconds"], 2),
        "off": round(metrics["seconds"] / wanted - 1, 4),
        "epochs": round(sum(epoch.pictures for epoch in epochs) / 47_500, 3),
        "test": metrics["test"],
        "test_flip": metrics["test_flip"],
    }


def recipe_point(recipe: str) -> dict[str, Any]:
    """Return the point of a recipe from its newest result of bench.py."""
    (row,) = json.loads(max(RESULTS.glob(f"*-{recipe}.json")).read_text())["runs"].values()
    test = {
        key: row[f"test.{key}"]["mean"]
        for key in ("fine_top1", "coarse_top1", FORMER)
        if f"test.{key}" in row
    }
    seconds = row.get("undisturbed_seconds", row["seconds"])
    return {"seconds": seconds["mean"], "test": test}


def draw_tutorial(axes: Axes) -> None:
    """Draw the tutorial's epochs on this machine, and its reported result from another."""
    epochs = json.loads(max(RESULTS.glob("*-peer.json")).read_text())["epochs"]
    times, values = zip(*((epoch["seconds"], epoch["val_acc"]) for epoch in epochs), strict=True)
    axes.plot(times, values, "s-", color=GREY, markersize=4, label="coarse, the tutorial here")
    reported = (TUTORIAL_HOURS * 3600, TUTORIAL_ACCURACY)
    axes.plot(*reported, "D", color=GREY)
    near, there = f"{values[-1]:.1%}", f"{TUTORIAL_ACCURACY:.2%} coarse,\nas it reports itself"
    points = "offset points"
    axes.annotate(near, (times[-1], values[-1]), (7, -4), textcoords=points, color=GREY)
    axes.annotate(there, reported, (20, -10), textcoords=points, ha="right", va="top", color=GREY)


def draw(points: list[dict[str, Any]]) -> None:
    """Draw accuracy against time on a logarithmic axis."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    seconds = [point["seconds"] for point in points]
    for key, name, colour in (
        ("coarse_top1", "coarse (20)", "#d9730d"),
        ("fine_top1", "fine (100)", "#2563a8"),
    ):
        values = [point["test"].get(key, point["test"].get(FORMER)) for point in points]
        axes.plot(seconds, values, "o-", color=colour, label=name)
        for at in zip(seconds, values, strict=True):
            axes.annotate(f"{at[1]:.1%}", at, (0, 8), textcoords="offset points", ha="center")
    draw_tutorial(axes)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([parse_duration(tick) for tick in TICKS]))
    axes.xaxis.set_major_formatter(FixedFormatter(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("time from the first weights to the last test figure")
    axes.set_title("CIFAR-100 test accuracy, single view, by `--budget`; last point: `best`")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    axes.margins(0.08, 0.15)
    figure.savefig(PICTURE, dpi=150)
    print(f"drew {PICTURE}")


def main() -> None:
    """Measure all budgets, or draw."""
    options = tyro.cli(Options)
    if options.draw:
        points = json.loads(options.draw.read_text())["points"]
        draw([*points, recipe_point("best")])
        return
    points = []
    for budget in options.budgets:
        points.append(measure(budget, options.seed))
        print(json.dumps(points[-1]), flush=True)
    if options.save:
        what = "one training per budget, test set used once at its end"
        save_result("curve", what, {"points": points})


if __name__ == "__main__":
    main()
