"""Recipe `gpu` over many seeds, beside the fastest public method on the same card.

    python benchmarks/gpu.py --seeds 20 --save

Both read the test set once a seed, at its end, single view. Both are timed as in that method's
contest: from pictures in the computer's memory to a trained network, without compiling, testing
and writing files.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from common import save_result, spread
from speedrun import Speedrun, Trained

from hundredfold import Dataset, gpu, load_data, measure, predict_logits
from hundredfold.environment import device_name
from hundredfold.job import make_job
from hundredfold.loop import epochs
from hundredfold.state import first_state

CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 20
    """Trainings of `gpu`: seeds 0, 1, ..."""
    peers: int = 5
    """Trainings of the public method."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ours(dataset: Dataset, seed: int) -> dict[str, float]:
    """Train recipe `gpu`; return its figures."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    job = make_job(gpu(seed=seed), dataset, CUDA)
    state = first_state(job)
    list(epochs(state, job))
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    logits = predict_logits(state.model, dataset.test.images, job.info)
    metrics = measure(logits, dataset.test.labels, dataset.parents)
    return {"fine": metrics["top1"], "coarse": metrics["coarse_top1"], "seconds": seconds}


def main() -> None:
    """Measure, print and save."""
    options = tyro.cli(Options)
    dataset = load_data("cifar100")
    public = Speedrun(dataset)
    print("compiled:", public.run(1000), flush=True)
    print("warm:", ours(dataset, 1000), flush=True)
    runs: list[dict[str, float]] = []
    theirs: list[Trained] = []
    for seed in range(options.seeds):
        runs.append(ours(dataset, seed))
        print(seed, runs[-1], flush=True)
        if seed < options.peers:
            theirs.append(public.run(seed))
            print("public", seed, theirs[-1], flush=True)
    figures: dict[str, Any] = {
        "gpu": {key: spread([run[key] for run in runs]) for key in runs[0]},
        "public": {
            "fine": spread([run.accuracy for run in theirs]),
            "seconds": spread([run.seconds for run in theirs]),
        },
        "card": device_name(CUDA),
    }
    figures["ratio"] = figures["public"]["seconds"]["mean"] / figures["gpu"]["seconds"]["mean"]
    print(figures)
    if options.save:
        save_result("gpu", "test set read once a seed, at its end", figures)


if __name__ == "__main__":
    main()
