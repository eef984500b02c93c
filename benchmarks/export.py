"""Export the bundled models; measure parity, 8-bit accuracy and the script beside the model.

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
"""Number of test pictures that the script beside the model classifies."""


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    save: bool = False
    """Write the result to benchmarks/results."""


def measure(name: str) -> dict[str, Any]:
    """Return a bundled model's parity, accuracy and sizes, and how often its script agrees."""
    run, dataset = find_run(name), load_cifar100()
    exported = export(run, "onnx", dataset, int8=True)
    images, folder = dataset.test.images[:PICTURES], exported.path.parent
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, images.permute(0, 2, 3, 1).numpy())
        command = [sys.executable, str(folder / "predict.py"), file.name]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    labels = [line.split("\t")[1] for line in lines.splitlines()]
    predictions = Predictor.load(run)(list(images))
    same = sum(a == b.label for a, b in zip(labels, predictions, strict=True))
    megabytes = {path.name: round(path.stat().st_size / 1e6, 2) for path in folder.iterdir()}
    return {
        "largest difference of a probability, by batch size": exported.parity,
        "test set": exported.accuracy,
        f"same classes from the script, of {PICTURES}": same,
        "MB": megabytes,
    }


def main(options: Options) -> None:
    """Measure, print and save."""
    results = {name: measure(name) for name in BUNDLED}
    print(results)
    if options.save:
        save_result("export", "bundled models as ONNX, onnxruntime on the CPU", results)


if __name__ == "__main__":
    main(tyro.cli(Options))
