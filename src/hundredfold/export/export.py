"""Export a run to ONNX or torch.export, and check that it predicts what the predictor does."""

import copy
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
from hundredfold.export.deployed import DeployedModel, trace
from hundredfold.export.onnx import OnnxModel, split_pictures, write_int8, write_onnx
from hundredfold.inference.features import predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.inference.predict import Predictor
from hundredfold.metrics.scores import measure
from hundredfold.models.info import ModelInfo
from hundredfold.pictures import pixels
from hundredfold.runs.folder import EXPORT_FOLDER, require_finished
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import CheckFailed, UserError
from hundredfold.support.files import save_file
from hundredfold.support.jsonio import as_json

PICTURES = 105
"""Largest number of pictures to compare on; it is odd, so the last batch of 2 has only one."""
BATCHES = (1, 2, 7)
"""Batch sizes to compare with."""
LIMIT = 1e-4
"""Largest allowed difference of a probability."""
CALIBRATION_PICTURES = 1000
"""Number of training pictures that determine the ranges of int8 activations."""
MIN_PROBABILITY = 1e-30
"""Replaces probabilities that 8 bits round to 0, so that the loss stays finite."""
Pixels: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[np.float32]
ExportedModel: TypeAlias = Callable[[Pixels], list[Numbers]]
"""Maps pictures (N, S, S, 3) to probabilities (N, C), and to `Prediction.known` (N,) if the model
can say."""


@dataclass(frozen=True)
class ExportResult:
    """An exported model and its comparison with the predictor."""

    path: Path
    """The exported model."""
    pictures: int
    """Number of pictures that the models were compared on."""
    parity: dict[str, float]
    """Largest difference of a probability from the predictor's, by batch size."""
    known: float | None
    """Largest difference of `Prediction.known`; None if the model cannot say."""
    accuracy: dict[str, dict[str, float]]
    """Test metrics that `measure` returns, by model: `predictor`, `exported`, `int8`; empty
    if the run's data is not available."""


def export(
    run: Run,
    to: Literal["onnx", "torch"],
    data: Dataset | str = "",
    *,
    int8: bool = False,
    tell: Callable[[str], None] = say,
) -> ExportResult:
    """Write a run's model for other programs to the folder `export` of the run directory.

    Args:
        run: a run with weights.
        to: `onnx` (for onnxruntime and others) or `torch` (for torch.export.load).
        data: as in `evaluate`.
        int8: write an 8-bit variant as well; needs the data, and ONNX.
        tell: called with a sentence if the data is not available.

    Raises:
        UserError: the run is unfinished, an extra is missing, or a file cannot be written.
        CheckFailed: the predictions of the exported model differ; it is deleted.

    Examples:
        >>> export(run, "torch").path.name
        'model.pt2'
    """
    require_finished(run.path)
    info, folder = run.info(), run.folder(EXPORT_FOLDER)
    if int8 and to != "onnx":
        raise UserError("--int8 is only possible with --to onnx.")
    dataset, missing = run_data_if_any(run, data)
    if missing and int8:
        raise UserError(missing)
    if missing:
        tell(
            "The exported model is checked on random pictures, and its accuracy is not measured "
            f"on the test set: {missing}"
        )
    predictor = Predictor.load(run, "cpu")
    model, known = predictor.model, predictor.known
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    program = trace(DeployedModel(plain, info, known), info.image_size)
    path = folder / ("model.onnx" if to == "onnx" else "model.pt2")
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    small = folder / "model-int8.onnx"
    if to == "onnx":  # one of an earlier export may be of other weights
        small.unlink(missing_ok=True)
    exported = _write(program, info, path)
    images = _pictures(dataset, info)
    logits = predict_logits(model, images, info)
    parity = _parity(exported, logits / info.temperature, images)
    _refuse_differences("probabilities", max(parity.values()), LIMIT, path)
    difference = None
    if known:
        features = predict_features(model, images, info)
        expected = known(logits, features).numpy()
        difference = float(np.abs(exported(_pixels(images))[1] - expected).max())
        limit = 1.5 / len(known.scores)  # rounding may move the rank of a picture by one
        _refuse_differences("values `known`", difference, limit, path)
    models = {"exported": exported}
    if int8 and dataset:
        chosen = torch.randperm(len(dataset.train), generator=generator(0, "int8"))
        chosen = chosen[:CALIBRATION_PICTURES]
        write_int8(path, small, _pixels(dataset.train.select(chosen).images))
        models["int8"] = OnnxModel(small).outputs
    accuracy = {}
    if dataset:
        logits = predict_logits(model, dataset.test.parts(), info) / info.temperature
        accuracy = _accuracy(models, logits, dataset.test, info)
    record = {"pictures": len(images), "parity": parity, "limit": LIMIT, "test": accuracy}
    record |= {} if difference is None else {"known": difference}
    save_file(path.with_name(f"{path.name}.json"), as_json(record))
    return ExportResult(path, len(images), parity, difference, accuracy)


def _write(program: torch.export.ExportedProgram, info: ModelInfo, path: Path) -> ExportedModel:
    """Write the model, and return a function that runs the written file."""
    if path.suffix == ".onnx":
        write_onnx(program, info, path)
        here = Path(__file__).parent
        shutil.copyfile(here / "standalone.py", path.with_name("predict.py"))
        shutil.copyfile(pixels.__file__, path.with_name("pixels.py"))
        return OnnxModel(path).outputs
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(pictures: Pixels) -> list[Numbers]:
        runs = [module(torch.from_numpy(batch)) for batch in split_pictures(pictures)]
        outputs = zip(*(run if isinstance(run, tuple) else (run,) for run in runs), strict=True)
        return [np.asarray(torch.cat(parts)) for parts in outputs]

    return run


def _pixels(images: torch.Tensor) -> Pixels:
    """Return pictures (N, 3, S, S) as an array (N, S, S, 3)."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _pictures(dataset: Dataset | None, info: ModelInfo) -> torch.Tensor:
    """Return pictures (N, 3, S, S) uint8 to compare on, from the test set or random ones."""
    if dataset:
        return dataset.test[:PICTURES].images
    shape = (PICTURES, 3, info.image_size, info.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0, "parity"))


def _parity(
    exported: ExportedModel, logits: torch.Tensor, images: torch.Tensor
) -> dict[str, float]:
    """Return the largest difference from the predictor's probabilities, by batch size."""
    expected, pictures = logits.softmax(1).numpy(), _pixels(images)
    parity = {}
    for size in BATCHES:
        batches = [exported(pictures[i : i + size])[0] for i in range(0, len(pictures), size)]
        parity[str(size)] = float(np.abs(np.concatenate(batches) - expected).max())
    return parity


def _refuse_differences(what: str, difference: float, limit: float, path: Path) -> None:
    """Delete an exported model whose answers differ from the predictor's by more than a limit.

    Raises:
        CheckFailed: they do.
    """
    if not difference <= limit:  # also true for NaN
        path.unlink()
        raise CheckFailed(
            f"{path.name} was deleted, because its {what} differ from those of the run's model by "
            f"up to {difference:.2g}."
        )


def _accuracy(
    models: dict[str, ExportedModel], logits: torch.Tensor, test: Split, info: ModelInfo
) -> dict[str, dict[str, float]]:
    """Return the test metrics of the predictor, from its calibrated logits, and of `models`."""

    def metrics(logits: torch.Tensor) -> dict[str, float]:
        return measure(logits, test.labels, info.labels, info.parents)

    accuracy = {"predictor": metrics(logits)}
    for name, model in models.items():
        parts = [torch.from_numpy(model(_pixels(part))[0]) for part in test.parts()]
        accuracy[name] = metrics(torch.cat(parts).clamp_min(MIN_PROBABILITY).log())
    return accuracy
