"""Measure how long training on few photos takes to say its first accuracy, and its last.

python benchmarks/first_figure.py PHOTOS/clothing --save

The recipe `probe` is trained on photos that were drawn at random, without a split and with an empty
cache. Times are in seconds from the start of the process.
"""

import csv
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro
from common import save_result, spread


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a set of photos with split.csv; its test photos are not used."""
    photos: int = 500
    """Number of photos."""
    repeats: int = 3
    """Number of trainings."""
    save: bool = False
    """Write the figures to benchmarks/results/."""


def write_table(options: Options, path: Path) -> None:
    """Write a table of photos that are drawn at random."""
    with (options.folder / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    random.Random(0).shuffle(rows)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for row in rows[: options.photos]:
            table.writerow([(options.folder / row["path"]).resolve(), row["class"]])


def measure(table: Path, scratch: Path) -> dict[str, float]:
    """Train once; return when it says the accuracies of cross-validation and of the test."""
    command = [sys.executable, "-m", "hundredfold", "train", "probe", "--data", str(table)]
    command += ["--out", str(scratch / "runs")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch), "PYTHONUNBUFFERED": "1"}
    marks = {"cross-validation of": "first accuracy", "top-1 fine": "test accuracy"}
    found, started = dict[str, float](), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            for mark, name in marks.items():
                if mark in line:
                    found.setdefault(name, time.perf_counter() - started)
    return found | {"end": time.perf_counter() - started}


def main(options: Options) -> None:
    """Measure each training in turn."""
    results = []
    for _ in range(options.repeats):
        with TemporaryDirectory() as name:
            table = Path(name, "photos.csv")
            write_table(options, table)
            results.append(measure(table, Path(name)))
            print(results[-1], flush=True)
    figures = {name: spread([each[name] for each in results]) for name in results[0]}
    if options.save:
        what = f"seconds from the start of `train probe` on {options.photos} photos"
        save_result("first-figure", what, figures)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
