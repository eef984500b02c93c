"""Measure training on sets of photos: from scratch, on pretrained features, and fine-tuned.

python benchmarks/photos.py PHOTOS/clothing PHOTOS/waste --seeds 3 --save photos.json

A run that the file has already is not repeated, so a measurement can be interrupted.

Each folder has a file split.csv with columns path, split and class. Every training is a process of
its own with an empty cache. Its seconds run from the start of the process to its end, so they
include reading the photos. With --peer, another program is run as well: a command that takes --data
FOLDER --epochs N --seed S and ends with a line of JSON with "accuracy", its own "seconds", and
"test", the number of test photos.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro
from common import MACHINE, spread

from hundredfold import Run
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.support.text import plural

WHAT = "test accuracy, and seconds from the start of the process to its end (peer: its own)"
WAYS: Mapping[str, tuple[str, ...]] = {
    "scratch": ("fast", "--budget", "2min"),
    "probe": ("probe",),
    "75s": ("--budget", "75s"),
    "2.5min": ("--budget", "150s"),
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
    ways: tuple[str, ...] = ("scratch", "probe", "75s", "default")
    """Names of the trainings to measure."""
    seeds: int = 3
    """Number of seeds for each, 0, 1, ..."""
    per_class: int = 0
    """Train on the first photos by name of each class only, validation included; 0 for all."""
    peer: str = ""
    """Command of another program; empty to measure none."""
    peer_epochs: tuple[int, ...] = (1, 3, 5)
    """Numbers of epochs of the other program."""
    save: Path | None = None
    """JSON file for the figures, read first and written after each run."""


def write_part(folder: Path, per_class: int, path: Path) -> Path:
    """Write a table with all test photos and the first training photos of each class."""
    with (folder / "split.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    counts: Counter[str] = Counter()
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "class"])
        for row in rows:
            counts[row["class"]] += row["split"] == "train"
            if row["split"] == "test" or (
                row["split"] == "train" and counts[row["class"]] <= per_class
            ):
                table.writerow([(folder / row["path"]).resolve(), row["split"], row["class"]])
    return path


def ours(folder: Path, way: str, seed: int, per_class: int) -> dict[str, float]:
    """Train once, and return test accuracies (0..1) and the time in seconds."""
    with TemporaryDirectory() as scratch:
        table = folder / "split.csv"
        if per_class:
            table = write_part(folder, per_class, Path(scratch, "part.csv"))
        command = [sys.executable, "-m", "hundredfold", "train", *WAYS[way], "--seed", str(seed)]
        command += ["--data", str(table), "--out", f"{scratch}/runs", "--quiet"]
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


def row_of(results: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of the trainings of one row, by seed from 0."""
    row: dict[str, Any] = {key: spread([run[key] for run in results]) for key in results[0]}
    pictures = int(row.pop("pictures")["mean"])
    low, high = wilson_interval(row["accuracy"]["mean"], pictures)
    return row | {"test_pictures": pictures, "interval": [round(low, 4), round(high, 4)]}


def results_of(row: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return the trainings from which `row_of` made a row."""
    values = {key: value["values"] for key, value in row.items() if isinstance(value, dict)}
    return [
        {key: values[key][seed] for key in values} | {"pictures": row["test_pictures"]}
        for seed in range(len(values["seconds"]))
    ]


def main(options: Options) -> None:
    """Measure each seed in turn; print and save after each run, because measuring takes long."""
    rows: dict[str, Any] = {}
    if options.save and options.save.exists():
        rows = json.loads(options.save.read_text())["rows"]
    peers = options.peer_epochs if options.peer else ()
    ways = [(way, way, 0) for way in options.ways]
    ways += [(f"peer, {plural(epochs, 'epoch')}", "", epochs) for epochs in peers]
    for seed, folder, (name, way, epochs) in product(range(options.seeds), options.folders, ways):
        part = f", {options.per_class} a class" if options.per_class else ""
        key = f"{folder.name}{part}, {name}"
        results = results_of(rows[key]) if key in rows else []
        if seed < len(results):
            continue
        results.append(
            ours(folder, way, seed, options.per_class)
            if way
            else peer(options.peer, folder, epochs, seed)
        )
        rows[key] = row_of(results)
        last, mean = results[-1], rows[key]["accuracy"]["mean"]
        print(
            f"{key:34} {last['accuracy']:.2%}  {last['seconds']:.0f} s  (mean {mean:.2%})",
            flush=True,
        )
        if options.save:
            text = json.dumps({"what": WHAT, "rows": rows, "machine": MACHINE}, indent=2)
            options.save.write_text(f"{text}\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
