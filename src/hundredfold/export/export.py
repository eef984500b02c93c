"""A run for other programs: ONNX or torch.export, proven equal to the predictor."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hundredfold.augment import generator
from hundredfold.data.dataset import Dataset, Split
from hundredfold.evaluation.evaluate import run_data_if_any
from hundredfold.export.deployed import Deployed, trace
from hundredfold.export.onnx import OnnxModel, write_int8, write_onnx
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.scores import measure
from hundredfold.models.info import ModelInfo
from hundredfold.pictures import pixels
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import CheckFailed, UserError
from hundredfold.support.files import save_file

PICTURES = 105
"""That the exported model and the predictor are compared on, where there are as many; the last
batch of 2 has only one."""
BATCHES = (1, 2, 7)
LIMIT = 1e-4
"""By which a probability may differ."""
CALIBRATION = 1000
"""Training pictures that the ranges of int8 activations are taken from."""
TINY = 1e-30
"""In place of probabilities that 8 bits have rounded to 0, so that the loss stays finite."""
Pixels: TypeAlias = npt.NDArray[np.uint8]
Probabilities: TypeAlias = npt.NDArray[np.float32]
Exported: TypeAlias = Callable[[Pixels], Probabilities]


@dataclass(frozen=True)
class Export:
    """What an export left."""

    path: Path
    """The model."""
    pictures: int
    """That it was compared with the predictor on."""
    parity: dict[str, float]
    """Largest difference of a probability from the predictor's, by batch size."""
    accuracy: dict[str, dict[str, float]]
    """What `metrics.measure` returns on the test set, by model: `predictor`, `exported`, `int8`;
    empty where the run's data was not at hand."""


def export(
    run: Run,
    to: Literal["onnx", "torch"],
    data: Dataset | str = "",
    *,
    int8: bool = False,
    tell: Callable[[str], None] = say,
) -> Export:
    """Write a run's model for other programs, below the run's folder `export`.

    Args:
        run: a run with weights.
        to: `onnx` (for onnxruntime and others) or `torch` (for torch.export.load).
        data: as in `evaluate`.
        int8: write a variant in 8 bits as well; needs the data, and ONNX.
        tell: takes a sentence about what is not as asked.

    Raises:
        UserError: the run has no weights, an extra is missing, or a file cannot be written.
        CheckFailed: the exported model predicts otherwise than the predictor: it is removed.
    """
    info, folder = run.info(), run.folder("export")
    if int8 and to != "onnx":
        raise UserError("--int8 is of ONNX models alone.")
    dataset, missing = run_data_if_any(run, data)
    if missing and int8:
        raise UserError(missing)
    if missing:
        tell(f"Compared on random pictures, and not measured on the test set: {missing}")
    model = run.model()
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    program = trace(Deployed(plain, info), info.image_size)
    path = folder / ("model.onnx" if to == "onnx" else "model.pt2")
    exported = _written(program, info, path)
    images = _pictures(dataset, info)
    parity = _parity(exported, predict_logits(model, images, info) / info.temperature, images)
    _settle(parity, path)
    models = {"exported": exported}
    if int8 and dataset:
        chosen = torch.randperm(len(dataset.train), generator=generator(0, "int8"))[:CALIBRATION]
        small = folder / "model-int8.onnx"
        write_int8(path, small, _pixels(dataset.train.select(chosen).images))
        models["int8"] = OnnxModel(small)
    accuracy = {}
    if dataset:
        logits = predict_logits(model, dataset.test.parts(), info) / info.temperature
        accuracy = _accuracy(models, logits, dataset.test, info)
    found = {"pictures": len(images), "parity": parity, "limit": LIMIT, "test": accuracy}
    save_file(path.with_name(f"{path.name}.json"), json.dumps(found, indent=2) + "\n")
    return Export(path, len(images), parity, accuracy)


def _written(program: torch.export.ExportedProgram, info: ModelInfo, path: Path) -> Exported:
    """Write the model; return what runs the file."""
    if path.suffix == ".onnx":
        write_onnx(program, info, path)
        here = Path(__file__).parent
        shutil.copyfile(here / "standalone.py", path.with_name("predict.py"))
        shutil.copyfile(pixels.__file__, path.with_name("pixels.py"))
        return OnnxModel(path)
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(pictures: Pixels) -> Probabilities:
        parts = torch.from_numpy(pictures).split(100)
        return np.asarray(torch.cat([module(part) for part in parts]))

    return run


def _pixels(images: torch.Tensor) -> Pixels:
    """Return pictures (N, 3, S, S) as (N, S, S, 3)."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _pictures(dataset: Dataset | None, info: ModelInfo) -> torch.Tensor:
    """Return pictures (N, 3, S, S) uint8 to compare on: of the test set, or random ones."""
    if dataset:
        return dataset.test[:PICTURES].images
    shape = (PICTURES, 3, info.image_size, info.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0, "parity"))


def _parity(exported: Exported, logits: torch.Tensor, images: torch.Tensor) -> dict[str, float]:
    """Return by how much probabilities differ from the predictor's at most, by batch size."""
    want, values = logits.softmax(1).numpy(), _pixels(images)
    found = {}
    for size in BATCHES:
        parts = [exported(values[i : i + size]) for i in range(0, len(values), size)]
        found[str(size)] = float(np.abs(np.concatenate(parts) - want).max())
    return found


def _settle(parity: dict[str, float], path: Path) -> None:
    """Remove a model that is not what it should be.

    Raises:
        CheckFailed: it is not.
    """
    if not max(parity.values()) <= LIMIT:  # NaN is not, either
        path.unlink()
        raise CheckFailed(
            f"{path.name} was removed: its probabilities differ from the predictor's by up to "
            f"{max(parity.values()):.2g}."
        )


def _accuracy(
    models: dict[str, Exported], logits: torch.Tensor, test: Split, info: ModelInfo
) -> dict[str, dict[str, float]]:
    """Measure the predictor, by its calibrated logits, and exported models, single view."""

    def measured(logits: torch.Tensor) -> dict[str, float]:
        return measure(logits, test.labels, info.labels, info.parents)

    found = {"predictor": measured(logits)}
    for name, model in models.items():
        parts = [torch.from_numpy(model(_pixels(part))) for part in test.parts()]
        found[name] = measured(torch.cat(parts).clamp_min(TINY).log())
    return found
