"""The models that come with the package, exported: parity, accuracy in 8 bits, their script.

python benchmarks/export.py --save
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from common import save_result

from hundredfold import Predictor, load_cifar100
from hundredfold.export.export import export
from hundredfold.runs.bundled import BUNDLED, find_run

PICTURES = 1000
"""Of the test set, that the script beside the model classifies."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    save: bool = False
    """Write the result to benchmarks/results."""


def measure(name: str) -> dict[str, Any]:
    """Return a bundled model's parity, accuracies and sizes, and how often its script agrees."""
    run, dataset = find_run(name), load_cifar100()
    found = export(run, "onnx", dataset, int8=True)
    images, folder = dataset.test.images[:PICTURES], found.path.parent
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, images.permute(0, 2, 3, 1).numpy())
        command = [sys.executable, str(folder / "predict.py"), file.name]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = [line.split("\t")[1] for line in lines.splitlines()]
    want = [answer.label for answer in Predictor.load(run)(list(images))]
    same = sum(a == b for a, b in zip(said, want, strict=True))
    megabytes = {path.name: round(path.stat().st_size / 1e6, 2) for path in folder.iterdir()}
    return {
        "largest difference of a probability, by batch size": found.parity,
        "test set": found.accuracy,
        f"same classes from the script, of {PICTURES}": same,
        "MB": megabytes,
    }


def main(options: Options) -> None:
    """Measure, print and save."""
    found = {name: measure(name) for name in BUNDLED}
    print(found)
    if options.save:
        save_result("export", "bundled models as ONNX, onnxruntime on the CPU", found)


if __name__ == "__main__":
    main(tyro.cli(Options))
