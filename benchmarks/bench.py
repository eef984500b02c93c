"""Recipes over several seeds, beside the tutorial in one sitting: accuracy, time, ratio.

    python benchmarks/bench.py --runs fast "fast --labels coarse --epochs 6.6" --seeds 5 --save

Each run is a command line of `hundredfold train`; each seed reads the test set once, at its end.
The tutorial's time is that of its 400,000 pictures at the speed measured before, between and after
the runs: its own validation and test are not counted.
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
    """Recipes, each with the flags that it should have."""
    seeds: int = 5
    """Seeds 0, 1, ...: one training of each run for each."""
    steps: int = 30
    """Steps of the tutorial to measure its speed by, each time."""
    peer: Path | None = None
    """A script that trains the tutorial as its reader would; see throughput.py."""
    data: Path | None = None
    """The peer's folder of pickles."""
    out: Path | None = None
    """Folder to keep the run directories in."""
    name: str = "bench"
    """What the result's file is called."""
    save: bool = False
    """Write the result to benchmarks/results."""


def parse(line: str) -> Config:
    """Return the configuration of a command line: a recipe and its flags."""
    name, *flags = shlex.split(line)
    return tyro.cli(Config, default=RECIPES[name](data="cifar100"), args=flags)


def tutorial_seconds(options: Options) -> dict[str, float]:
    """Return the time that the tutorial's training would take: ours, and the peer's if named."""
    speeds = {"ours": ours(options.steps)}
    if options.peer and options.data:
        speeds["peer"] = theirs(options.peer, options.data, options.steps)
    print("tutorial, images/s:", speeds, flush=True)
    return {name: TUTORIAL_PICTURES / speed for name, speed in speeds.items()}


def one(config: Config, seed: int, out: Path | None) -> dict[str, float]:
    """Train a seed; return its figures."""
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
"""Of each run, each seed's."""


def summary(configs: dict[str, Config], results: Figures, base: dict[str, Any]) -> dict[str, Any]:
    """Return each run's figures over its seeds, their ratio to the tutorial, its configuration."""
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
    """Measure in turn, print and save; what is saved is complete up to the last seed."""
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
                "test set read once a seed, at its end; seconds from first weights to last figure"
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
