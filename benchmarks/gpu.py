"""Recipe `gpu` over many seeds, beside the fastest public method on the same card.

    python benchmarks/gpu.py --seeds 20 --save

Both read the test set once a seed, at its end. Ours is timed from the first weights to the last
figure, tests and files included (`seconds`), and without them (`train_seconds`); theirs, as in
their contest, from pictures in the computer's memory to a trained network.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import save_result, spread
from speedrun import Speedrun, Trained

from hundredfold import Dataset, gpu, load_data, train


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 20
    """Trainings of `gpu`: seeds 0, 1, ..."""
    peers: int = 5
    """Trainings of the public method."""
    out: Path | None = None
    """Folder to keep the run directories in."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ours(dataset: Dataset, seed: int, out: str) -> dict[str, float]:
    """Train recipe `gpu`; return its figures."""
    metrics = train(gpu(device="cuda", seed=seed, out=out), dataset, quiet=True).metrics
    return {
        "fine": metrics["test"]["top1"],
        "coarse": metrics["test"]["coarse_top1"],
        "fine, flip": metrics["test_flip"]["top1"],
        "coarse, flip": metrics["test_flip"]["coarse_top1"],
        "seconds": metrics["seconds"],
        "train_seconds": metrics["train_seconds"],
    }


def main() -> None:
    """Measure, print and save."""
    options = tyro.cli(Options)
    dataset = load_data("cifar100")
    public = Speedrun(dataset)
    for seed in range(2):
        public.run(seed)  # compiles, for both sizes of pictures
    theirs: list[Trained] = []
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        ours(dataset, 1000, folder)  # the first on a GPU is slower
        for seed in range(options.seeds):
            runs.append(ours(dataset, seed, str(options.out or folder)))
            print(seed, runs[-1], flush=True)
            if seed < options.peers:
                theirs.append(public.run(seed))
                print("public", seed, theirs[-1], flush=True)
    figures = {
        "gpu": {key: spread([run[key] for run in runs]) for key in runs[0]},
        "public": {
            "fine": spread([run.accuracy for run in theirs]),
            "seconds": spread([run.seconds for run in theirs]),
        },
        "card": torch.cuda.get_device_name(),
    }
    ratio = figures["public"]["seconds"]["mean"] / figures["gpu"]["train_seconds"]["mean"]
    print(figures, f"public / gpu: {ratio:.2f}")
    if options.save:
        save_result("gpu", "test set read once a seed, at its end", {**figures, "ratio": ratio})


if __name__ == "__main__":
    main()
