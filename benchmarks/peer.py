"""The tutorial's curve: a peer that trains it whole, as its reader would, on this machine.

    python benchmarks/peer.py --peer notebook.py --data FOLDER --save

The peer is a script as in throughput.py; run without --steps it prints a line of JSON an epoch,
with `val_acc`, the share of the 10,000 test pictures whose superclass it names, and `seconds` since
its first step. It looks at the test set after each epoch, as the tutorial does; it takes hours.
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
    """The peer's script."""
    data: Path
    """Folder with the official pickles train and test."""
    save: bool = False
    """Write the result to benchmarks/results."""


def main() -> None:
    """Train the peer whole, print and save."""
    options = tyro.cli(Options)
    epochs = []
    for epoch in run_peer(options.peer, options.data):
        print(json.dumps(epoch), flush=True)
        epochs.append(epoch)
    if options.save:
        save_result("peer", "the tutorial as its reader runs it, coarse, n = 1", {"epochs": epochs})


if __name__ == "__main__":
    main()
