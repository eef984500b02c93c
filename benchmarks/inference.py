"""Measure inference speed: torch and onnxruntime, one picture and batches, several networks.

python benchmarks/inference.py --save

Each round measures all of them, so that changes in the machine's speed affect all alike.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
import tyro
from common import save_result, spread
from torch import nn

from hundredfold import Predictor, fast, load_sample, strong, tutorial
from hundredfold.export.deployed import DeployedModel, trace
from hundredfold.export.onnx import write_onnx
from hundredfold.models.info import ModelInfo
from hundredfold.runs.bundled import find_run
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

MANY = 100
"""Number of pictures in a large batch."""


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    rounds: int = 5
    """Number of rounds over all models."""
    save: bool = False
    """Write the result to benchmarks/results."""


def resnet18() -> nn.Module:
    """Return timm's ResNet-18 with the usual changes for CIFAR: a 3x3 stem without pooling."""
    model: nn.Module = timm.create_model("resnet18", num_classes=100)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(memory_format=torch.channels_last)


def networks() -> dict[str, tuple[nn.Module, ModelInfo]]:
    """Return the networks to compare. Their speed does not depend on their weights."""
    models: dict[str, tuple[nn.Module, ModelInfo]] = {}
    for recipe in (fast(), strong(), tutorial(labels="fine")):
        setup = make_setup(recipe, load_sample(), torch.device("cpu"))
        models[recipe.name] = first_state(setup).model.eval(), setup.info
    bundled = find_run("strong")
    models["bundled strong"] = bundled.model(), bundled.info()
    models["timm resnet18, CIFAR stem"] = resnet18().eval(), models["fast"][1]
    return models


def runtimes(model: nn.Module, info: ModelInfo, path: Path) -> dict[str, Callable[[Any], Any]]:
    """Return functions from pixels (N, 32, 32, 3) uint8 to probabilities, by runtime."""
    deployed = DeployedModel(model, info).eval()
    write_onnx(trace(deployed, 32), info, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run_torch(pixels: Any) -> Any:
        with torch.inference_mode():
            return deployed(torch.from_numpy(pixels)).numpy()

    return {
        "torch": run_torch,
        "onnxruntime": lambda pixels: session.run(None, {"pictures": pixels})[0],
    }


def seconds(work: Callable[[Any], Any], pixels: Any) -> float:
    """Return the mean time of a call in seconds, measured for at least half a second."""
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5 or calls < 2:
        work(pixels)
        calls += 1
    return (time.perf_counter() - began) / calls


def main(options: Options) -> None:
    """Measure, print and save."""
    rng = np.random.default_rng(0)
    batches = {n: rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (1, MANY)}
    with tempfile.TemporaryDirectory() as folder:
        functions = {
            (name, runtime): function
            for number, (name, (model, info)) in enumerate(networks().items())
            for runtime, function in runtimes(model, info, Path(folder) / f"{number}.onnx").items()
        }
        times: dict[tuple[str, str, int], list[float]] = {}
        for _ in range(options.rounds):
            for (name, runtime), function in functions.items():
                for count, pixels in batches.items():
                    time_s = seconds(function, pixels)
                    times.setdefault((name, runtime, count), []).append(time_s)
    figures: dict[str, dict[str, Any]] = {}
    for (name, runtime, count), values in times.items():
        unit = "ms, one picture" if count == 1 else f"pictures/s, batches of {MANY}"
        figure = spread([1000 * v if count == 1 else count / v for v in values])
        figures.setdefault(f"{name}, {runtime}", {})[unit] = figure
    picture = load_sample().test.images[0]
    predictor = Predictor.load("strong")
    latencies = [1000 * seconds(predictor, picture) for _ in range(options.rounds)]
    figures["Predictor of the bundled strong, from pixels to ranked names"] = {
        "ms, one picture": spread(latencies)
    }
    for name, units in figures.items():
        print(name, *(f"{unit} {v['mean']:.4g} ({v['std']:.2g})" for unit, v in units.items()))
    if options.save:
        save_result("inference", "inference speed, alternating rounds", figures)


if __name__ == "__main__":
    main(tyro.cli(Options))
