"""Measure training on sets of photos: from scratch, on pretrained features, and fine-tuned.

python benchmarks/photos.py PHOTOS/clothing PHOTOS/waste --ways probe 90s --seeds 3 --save

Each folder has a file split.csv with columns path, split and class. Every training is a process of
its own with an empty cache. Its seconds run from the start of the process to its end, so they
include reading the photos. With --peer, another program is measured in the same way: a command that
takes --data FOLDER --epochs N --seed S and ends with a line of JSON with "accuracy" and "seconds".
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro
from common import save_result, spread

from hundredfold import Run
from hundredfold.metrics.intervals import wilson_interval

WHAT = "accuracy on the test photos and total time, from the start of the process to its end"
WAYS: Mapping[str, tuple[str, ...]] = {
    "scratch": ("fast", "--budget", "2min"),
    "probe": ("probe",),
    "75s": ("--budget", "75s"),
    "150s": ("--budget", "150s"),
    "5min": ("--budget", "5min"),
    "10min": ("--budget", "10min"),
    "15min": ("--budget", "15min"),
    "default": (),
}
"""Arguments of `hundredfold train` by the name of the row."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of the sets of photos."""
    ways: tuple[str, ...] = ("scratch", "probe", "75s", "5min")
    """Names of the trainings to measure."""
    seeds: int = 3
    """Number of seeds for each, 0, 1, ..."""
    peer: str = ""
    """Command of another program; empty to measure none."""
    peer_epochs: tuple[int, ...] = (1, 3, 5)
    """Numbers of epochs of the other program."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ours(folder: Path, way: str, seed: int) -> dict[str, float]:
    """Train once, and return test accuracies (0..1) and the time in seconds."""
    with TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "hundredfold", "train", *WAYS[way], "--seed", str(seed)]
        command += ["--data", str(folder / "split.csv"), "--out", f"{scratch}/runs", "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": scratch}, check=True)
        seconds = time.perf_counter() - started
        (path,) = Path(scratch, "runs").iterdir()
        run = Run(path)
        metrics = run.metrics()
        return {
            "accuracy": metrics["test"]["fine_top1"],
            "flip": metrics["test_flip"]["fine_top1"],
            "epochs": sum(epoch.pictures for epoch in run.history()) / metrics["epoch_pictures"],
            "pictures": metrics["test_pictures"],
            "seconds": seconds,
        }


def peer(command: str, folder: Path, epochs: int, seed: int) -> dict[str, float]:
    """Run the other program once, and return its accuracy (0..1) and its time in seconds."""
    arguments = ["--data", str(folder), "--epochs", str(epochs), "--seed", str(seed)]
    output = subprocess.run(
        [*shlex.split(command), *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found = json.loads(output.strip().splitlines()[-1])
    keys = {"accuracy": "accuracy", "seconds": "seconds", "pictures": "test"}
    return {name: float(found[key]) for name, key in keys.items()}


def main(options: Options) -> None:
    """Measure, print and save after each row, because measuring takes long."""
    figures: dict[str, Any] = {}
    rows = [(way, way, 0) for way in options.ways]
    if options.peer:
        rows += [(f"peer, {epochs} epochs", "", epochs) for epochs in options.peer_epochs]
    for folder in options.folders:
        for name, way, epochs in rows:
            results = [
                ours(folder, way, seed) if way else peer(options.peer, folder, epochs, seed)
                for seed in range(options.seeds)
            ]
            row: dict[str, Any] = {
                key: spread([found[key] for found in results]) for key in results[0]
            }
            pictures = int(row.pop("pictures")["mean"])
            low, high = wilson_interval(row["accuracy"]["mean"], pictures)
            row |= {"test_pictures": pictures, "interval": [round(low, 4), round(high, 4)]}
            figures[f"{folder.name}, {name}"] = row
            print(
                f"{folder.name:12} {name:16} {row['accuracy']['mean']:.2%} "
                f"({low:.1%} to {high:.1%})  {row['seconds']['mean']:.0f} s",
                flush=True,
            )
            if options.save:
                save_result("photos", WHAT, figures)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
