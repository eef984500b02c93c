"""Compare one process on all cores with two processes on half of them: time and accuracy.

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
from common import save_result, spread

from hundredfold import Run


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipe: str = "fast"
    """Recipe to train on CIFAR-100."""
    epochs: float = 3.4
    """Number of epochs."""
    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes to compare."""
    seeds: int = 1
    """Number of seeds, from 0, for each number of processes."""
    save: bool = False
    """Write the result to benchmarks/results."""


def train_in_processes(options: Options, processes: int, seed: int, folder: str) -> Run:
    """Train in a number of processes that share the cores; return the run."""
    threads = max(1, torch.get_num_threads() // processes)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable, *(launch if processes > 1 else []), "-m", "hundredfold", "train",
        options.recipe, "--epochs", str(options.epochs), "--seed", str(seed), "--out", folder,
        "--quiet",
    ]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    (path,) = Path(folder).glob(f"*s{seed}")
    return Run(path)


def main(options: Options) -> None:
    """Measure, print and save."""
    figures: dict[str, Any] = {"recipe": options.recipe, "epochs": options.epochs}
    for processes in options.processes:
        runs = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                run = train_in_processes(options, processes, seed, folder)
                runs.append(run.metrics())
        figures[f"{processes} processes"] = {
            "pictures/s": spread([metrics["images_per_second"] for metrics in runs]),
            "training s": spread([metrics["train_seconds"] for metrics in runs]),
            "test fine_top1": spread([metrics["test"]["fine_top1"] for metrics in runs]),
            "test coarse_top1": spread([metrics["test"]["coarse_top1"] for metrics in runs]),
        }
        print(processes, figures[f"{processes} processes"])
    if options.save:
        save_result(
            "processes",
            "one process on two cores, compared with two processes on one core each",
            figures,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
