"""Measure the speed of the tutorial's recipe, and of a peer script that runs the tutorial.

    python benchmarks/throughput.py --peer notebook.py --data FOLDER

The peer is any script that takes --data FOLDER --steps N, trains the tutorial's network as a reader
of the tutorial would, and prints a line of JSON with `images_per_s`. Rounds alternate, the peer
first, so that both run under the same load of the machine. The limit is the speed of the network's
convolutions alone.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from common import save_result
from torch import nn

from hundredfold import load_cifar100, tutorial
from hundredfold.models.resnet9 import ResNet9
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peer: Path
    """Script of the peer."""
    data: Path
    """Folder with the official pickle files train and test."""
    steps: int = 60
    """Number of steps per round."""
    rounds: int = 3
    """Number of rounds of each."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ours(steps: int) -> float:
    """Return the images/s of recipe tutorial over a number of steps, from the first step on."""
    dataset = load_cifar100().with_labels("coarse")
    config = tutorial(device="cpu")
    subset = replace(dataset, train=dataset.train[: steps * config.batch_size])
    setup = make_setup(config, subset, torch.device("cpu"))
    setup = replace(setup, validation_split=setup.validation_split[:0])
    state = first_state(setup)
    started = time.perf_counter()
    next(train_epochs(state, setup))
    return steps * config.batch_size / (time.perf_counter() - started)


def run_peer(peer: Path, data: Path, *flags: str) -> Iterator[dict[str, Any]]:
    """Yield the content of each line that the peer prints, as soon as it is printed."""
    command = [sys.executable, str(peer), "--data", str(data), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        raise SystemExit(f"{peer} ended with exit code {process.returncode}.")


def theirs(peer: Path, data: Path, steps: int) -> float:
    """Return the images/s that the peer reports."""
    *_, last = run_peer(peer, data, "--steps", str(steps))
    return float(last["images_per_s"])


def convolution_limit() -> float:
    """Return the images/s of the eight convolutions alone, forward and backward, channels_last."""
    seconds, batch = 0.0, 64
    model = ResNet9(20)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    for conv, side in zip(convolutions, (32, 32, 16, 16, 16, 8, 4, 4), strict=True):
        conv.to(memory_format=torch.channels_last)
        shape = (batch, conv.in_channels, side, side)
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        x.requires_grad_(conv.in_channels != 3)  # the pictures need no gradient
        times = []
        for _ in range(8):
            started = time.perf_counter()
            y = conv(x)
            y.backward(y)
            times.append(time.perf_counter() - started)
        seconds += min(times)
    return batch / seconds


def main() -> None:
    """Measure alternately, print and save."""
    options = tyro.cli(Options)
    peer, own = [], []
    for number in range(options.rounds):
        peer.append(theirs(options.peer, options.data, options.steps))
        own.append(round(ours(options.steps), 1))
        print(f"round {number + 1}: peer {peer[-1]} images/s, ours {own[-1]}", flush=True)
    ratios = [mine / other for mine, other in zip(own, peer, strict=True)]
    what = f"images/s over {options.steps} steps of the tutorial's recipe, rounds alternating"
    figures = {
        "peer": peer,
        "ours": own,
        "ratio_mean": round(statistics.mean(ratios), 3),
        "ratio_std": round(statistics.stdev(ratios), 3) if len(ratios) > 1 else None,
        "floor": round(convolution_limit(), 1),
    }
    print(json.dumps(figures, indent=2))
    if options.save:
        save_result("throughput", what, figures)


if __name__ == "__main__":
    main()
