"""Measure recipes over several seeds and the tutorial: accuracy, time and ratio of the times.

    python benchmarks/bench.py --runs fast "fast --labels coarse --epochs 6.6" --seeds 5 --save

Each run is a command line of `hundredfold train`; each seed uses the test set once, at its end. The
time of the tutorial is that of its 400,000 pictures at the speed measured before, between and after
the runs; its validation and test are not counted.
"""

import json
import shlex
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from common import TUTORIAL_PICTURES, save_result, spread
from throughput import ours, theirs

from hundredfold import Config, train
from hundredfold.recipes import RECIPES


@dataclass(frozen=True)
class Options:
    """What to measure."""

    runs: tuple[str, ...] = ("fast", "fast --labels coarse --epochs 6.6")
    """Recipes, each with its flags."""
    seeds: int = 5
    """Number of seeds 0, 1, ..., each with one training of each run."""
    steps: int = 30
    """Number of steps for each measurement of the tutorial's speed."""
    peer: Path | None = None
    """A script that runs the tutorial as its reader would; see throughput.py."""
    data: Path | None = None
    """Folder with the pickle files for the peer."""
    out: Path | None = None
    """Folder in which the run directories are kept."""
    name: str = "bench"
    """Name of the result's file."""
    save: bool = False
    """Write the result to benchmarks/results."""


def parse(line: str) -> Config:
    """Return the configuration that a command line, a recipe and its flags, describes."""
    name, *flags = shlex.split(line)
    return tyro.cli(Config, default=RECIPES[name](data="cifar100"), args=flags)


def tutorial_seconds(options: Options) -> dict[str, float]:
    """Return the time of the tutorial's training in seconds, by hundredfold and by the peer."""
    speeds = {"ours": ours(options.steps)}
    if options.peer and options.data:
        speeds["peer"] = theirs(options.peer, options.data, options.steps)
    print("tutorial, images/s:", speeds, flush=True)
    return {name: TUTORIAL_PICTURES / speed for name, speed in speeds.items()}


def one(config: Config, seed: int, out: Path | None) -> dict[str, float]:
    """Train with a seed; return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = train(replace(config, seed=seed, out=str(out or folder)), quiet=True).metrics()
    figures = {
        f"{view}.{key}": value
        for view in ("test", "test_flip")
        for key, value in metrics[view].items()
    }
    times = ("seconds", "train_seconds", "validation_seconds", "test_seconds", "images_per_second")
    return figures | {key: metrics[key] for key in times}


Figures = dict[str, list[dict[str, float]]]
"""Figures of each seed, by run."""


def summary(configs: dict[str, Config], results: Figures, base: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of each run over its seeds, the ratio of times, and the configuration."""
    rows = {}
    for line, seeds in results.items():
        row: dict[str, Any] = {key: spread([figures[key] for figures in seeds]) for key in seeds[0]}
        for name, times in base.items():
            row[f"tutorial_{name}_ratio"] = round(times["mean"] / row["seconds"]["mean"], 2)
        values = asdict(configs[line])
        row["config"] = {k: v for k, v in values.items() if k not in ("seed", "out")}
        rows[line] = row
    return rows


def main() -> None:
    """Measure, print and save; after each seed, the result is saved."""
    options = tyro.cli(Options)
    if options.peer and not options.data:
        raise SystemExit("--peer needs --data, the folder of pickles that it reads.")
    configs = {line: parse(line) for line in options.runs}
    results: Figures = {line: [] for line in configs}
    tutorial = [tutorial_seconds(options)]
    for seed in range(options.seeds):
        for line, config in configs.items():
            results[line].append(one(config, seed, options.out))
            print(f"{line}, seed {seed}: {json.dumps(results[line][-1])}", flush=True)
        if seed in (options.seeds // 2, options.seeds - 1):
            tutorial.append(tutorial_seconds(options))
        base = {name: spread([times[name] for times in tutorial]) for name in tutorial[0]}
        rows = summary(configs, results, base)
        if options.save:
            what = (
                "test set used once per seed, at its end; seconds from first weights to last figure"
            )
            save_result(options.name, what, {"tutorial_seconds": base, "runs": rows})
    for line, row in rows.items():
        print(
            f"{line}: coarse {row['test.coarse_top1']['mean']:.4f}, "
            f"{row['seconds']['mean']:.0f} s, 1/{row['tutorial_ours_ratio']} of `tutorial`, "
            f"n = {row['seconds']['n']}"
        )


if __name__ == "__main__":
    main()
