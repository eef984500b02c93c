"""Write ONNX models, quantize them to 8 bits, and run them."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hundredfold.inference.logits import BATCH_OF_LARGE, LARGE
from hundredfold.models.info import ModelInfo
from hundredfold.support.errors import extra

EXTRA = ("onnx", "ONNX needs")
BATCH = 100
"""Number of pictures in a batch, unless they are large."""


def write_onnx(program: torch.export.ExportedProgram, info: ModelInfo, path: Path) -> None:
    """Write a graph, with the meaning of its inputs and outputs as metadata.

    Raises:
        UserError: the extra is not installed.
    """
    with extra(*EXTRA):
        import onnx  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415  # torch.onnx needs both
    outputs = ["probabilities", "known"][: len(program.graph_signature.user_outputs)]
    names = {"input_names": ["pictures"], "output_names": outputs}
    with _quiet("torch.onnx"):
        written: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)
        written.model.metadata_props.update(metadata(info))
        written.save(path, external_data=False)


def metadata(info: ModelInfo) -> dict[str, str]:
    """Return the classes and the preparation of pictures, each value as JSON."""
    fields = (
        "labels", "classes", "superclasses", "parents", "image_size", "fit", "mean", "std",
        "temperature",
    )  # fmt: skip
    return {field: json.dumps(getattr(info, field)) for field in fields}


def split_pictures(pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return pictures (N, S, S, 3) in batches that fit into memory."""
    size = BATCH_OF_LARGE if pictures.shape[1] > LARGE else BATCH
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]


class OnnxModel:
    """An ONNX model that onnxruntime runs on the CPU.

    Raises:
        UserError: the extra is not installed.
    """

    def __init__(self, path: Path) -> None:
        with extra(*EXTRA):
            import onnxruntime  # noqa: PLC0415

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Map pictures (N, S, S, 3) to probabilities (N, C)."""
        return self.outputs(pictures)[0]

    def outputs(self, pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Map pictures (N, S, S, 3) to probabilities (N, C), and to `known` (N,) if it can say."""
        runs = [self.session.run(None, {"pictures": batch}) for batch in split_pictures(pictures)]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def write_int8(path: Path, target: Path, pictures: npt.NDArray[np.uint8]) -> None:
    """Write a variant of an ONNX model with 8-bit weights and activations.

    Weights are quantized per channel, activations by their ranges on `pictures`. Weights use only 7
    bits: processors without VNNI add pairs of products in 16 bits, which would overflow.

    Args:
        path: the ONNX model.
        target: file for the variant.
        pictures: (N, S, S, 3) uint8, from the training set.

    Raises:
        UserError: the extra is not installed.
    """
    with extra(*EXTRA):
        import onnx  # noqa: PLC0415
        from onnxruntime import quantization as q  # noqa: PLC0415

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        """Returns the pictures in batches."""

        def __init__(self) -> None:
            self.batches = iter([{"pictures": batch} for batch in split_pictures(pictures)])

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.batches, None)

    with _quiet(None):  # it logs to the root logger
        q.quantize_static(
            path,
            target,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
    written = onnx.load(target)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    onnx.helper.set_model_props(written, properties)
    onnx.save(written, target)


@contextmanager
def _quiet(logger: str | None) -> Iterator[None]:
    """Suppress a library's warnings about its internals."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations that libraries report about each other
            yield
    finally:
        log.setLevel(before)
