"""One process on all cores against two on half of them each: the same recipe, time and accuracy.

python benchmarks/processes.py --save
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import save_result

from hundredfold import Run


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipe: str = "fast"
    """On CIFAR-100, seed 0."""
    epochs: float = 3.4
    """Passes over the training pictures."""
    save: bool = False
    """Write the result to benchmarks/results."""


def trained(options: Options, processes: int, folder: str) -> Run:
    """Return a run by so many processes that share the cores."""
    threads = max(1, torch.get_num_threads() // processes)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable, *(launch if processes > 1 else []), "-m", "hundredfold", "train",
        options.recipe, "--epochs", str(options.epochs), "--quiet", "--out", folder,
    ]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    (path,) = Path(folder).glob("*s0")
    return Run(path)


def main(options: Options) -> None:
    """Measure, print and save."""
    figures: dict[str, Any] = {"recipe": options.recipe, "epochs": options.epochs, "n": 1}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            metrics = trained(options, processes, folder).metrics
        figures[f"{processes} processes"] = {
            "pictures/s": round(metrics["images_per_second"], 1),
            "training s": round(metrics["train_seconds"], 1),
            "test top1": metrics["test"]["top1"],
            "test coarse_top1": metrics["test"]["coarse_top1"],
        }
        print(processes, figures[f"{processes} processes"])
    if options.save:
        save_result("processes", "one process on two cores against two on one each", figures)


if __name__ == "__main__":
    main(tyro.cli(Options))
