"""Small data sets and small runs for tests."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from hundredfold import Config, Dataset, Run, Split
from hundredfold.training.progress import Display

Train = Callable[..., Run]
"""Type of the fixture `trained`."""
Load = Callable[..., Dataset]
"""Type of the fixture `load`."""


def make_split(count: int, classes: int, seed: int = 0) -> Split:
    """Return random pictures with labels in turn; each class has its own brightness."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 100, (count, 3, 32, 32), generator=rng)
    return Split((noise + 150 * labels.view(-1, 1, 1, 1) // classes).to(torch.uint8), labels)


def make_tiny() -> Dataset:
    """Return 96 + 24 pictures of 6 easily distinguished classes in 2 superclasses."""
    return Dataset(
        source="tiny",
        train=make_split(96, 6),
        test=make_split(24, 6, seed=1),
        classes=tuple("abcdef"),
        superclasses=("low", "high"),
        parents=(0, 0, 0, 1, 1, 1),
    )


class Notes(Display):
    """A display that keeps the lines about a training and the sentences for the user."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.said: list[str] = []

    def start(self, run: Run, config: Config, lines: list[str]) -> None:
        self.lines = lines

    def note(self, sentence: str) -> None:
        self.said.append(sentence)


def make_config(out: Path) -> Config:
    """Return the configuration of a whitenet that trains on `tiny` in a second."""
    return Config(
        name="tiny",
        widths=(8, 16, 16),
        epochs=2,
        batch_size=16,
        validation=0.25,
        lr=0.05,
        out=str(out),
        device="cpu",
    )


def update_digests(run: Run) -> None:
    """Record the digests of a finished run's files again, as an attacker could."""
    metrics = json.loads((run.path / "metrics.json").read_text())
    metrics.pop("sha256", None)
    run.save_metrics(metrics)


def unfinish(run: Run) -> None:
    """Turn a finished run into one that was interrupted."""
    for name in ("metrics.json", "weights.safetensors"):
        (run.path / name).unlink()
