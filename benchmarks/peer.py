"""Train the tutorial's model completely with its own code, to get its accuracy over time.

    python benchmarks/peer.py --peer notebook.py --data FOLDER --save

The peer is a script as in throughput.py. Without --steps it prints a line of JSON for each epoch
with `val_acc`, its superclass accuracy on the 10,000 test pictures, and `seconds` since its first
step. It evaluates on the test set after each epoch, as the tutorial does. It takes hours.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import save_result
from throughput import run_peer


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peer: Path
    """Script of the peer."""
    data: Path
    """Folder with the official pickles train and test."""
    save: bool = False
    """Write the result to benchmarks/results."""


def main() -> None:
    """Train the peer, and print and save its results."""
    options = tyro.cli(Options)
    epochs = []
    for epoch in run_peer(options.peer, options.data):
        print(json.dumps(epoch), flush=True)
        epochs.append(epoch)
    if options.save:
        save_result("peer", "the tutorial as its reader runs it, coarse, n = 1", {"epochs": epochs})


if __name__ == "__main__":
    main()
