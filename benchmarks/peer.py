"""The tutorial's curve: a peer that trains it whole, as its reader would, on this machine.

    python benchmarks/peer.py --peer notebook.py --data FOLDER --save

The peer is a script as in throughput.py; run without --steps it prints a line of JSON an epoch,
with `val_acc`, the share of the 10,000 test pictures whose superclass it names, and `seconds` since
its first step. It looks at the test set after each epoch, as the tutorial does; it takes hours.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import save_result


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peer: Path
    """The peer's script."""
    data: Path
    """Folder with the official pickles train and test."""
    save: bool = False
    """Write the result to benchmarks/results."""


def read(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the epochs that a peer prints, showing each as it comes."""
    epochs = []
    for line in lines:
        print(line, end="", flush=True)
        epochs.append(json.loads(line))
    return epochs


def save(epochs: list[dict[str, Any]]) -> None:
    """Write them to benchmarks/results."""
    save_result("peer", "the tutorial as its reader runs it, coarse, n = 1", {"epochs": epochs})


def main() -> None:
    """Train the peer whole, print and save."""
    options = tyro.cli(Options)
    command = [sys.executable, str(options.peer), "--data", str(options.data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        epochs = read(peer.stdout or ())
    if peer.returncode:
        raise SystemExit(f"{options.peer} ended with exit code {peer.returncode}.")
    if options.save:
        save(epochs)


if __name__ == "__main__":
    main()
