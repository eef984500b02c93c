"""ONNX: writing a graph, running it, and its int8 variant."""

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

from hundredfold.models.info import ModelInfo
from hundredfold.support.errors import extra

EXTRA = ("onnx", "ONNX needs")
BATCH = 100
"""Pictures that the runtime is given at once."""


def write_onnx(program: torch.export.ExportedProgram, info: ModelInfo, path: Path) -> None:
    """Write a graph with what its numbers mean as metadata.

    Raises:
        UserError: the extra is not installed.
    """
    with extra(*EXTRA):
        import onnx  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415  # torch.onnx needs both
    names = {"input_names": ["pictures"], "output_names": ["probabilities"]}
    with _hushed("torch.onnx"):
        written: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)
        written.model.metadata_props.update(metadata(info))
        written.save(path, external_data=False)


def metadata(info: ModelInfo) -> dict[str, str]:
    """Return what the model's numbers mean, each value as JSON."""
    fields = (
        "labels", "classes", "superclasses", "parents", "image_size", "mean", "std", "temperature",
    )  # fmt: skip
    return {field: json.dumps(getattr(info, field)) for field in fields}


class OnnxModel:
    """A graph that was written, run by onnxruntime on the CPU.

    Raises:
        UserError: the extra is not installed.
    """

    def __init__(self, path: Path) -> None:
        with extra(*EXTRA):
            import onnxruntime  # noqa: PLC0415

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Map pictures (N, S, S, 3) to probabilities (N, C)."""
        parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
        return np.concatenate([self.session.run(None, {"pictures": part})[0] for part in parts])


def write_int8(path: Path, target: Path, pictures: npt.NDArray[np.uint8]) -> None:
    """Write a graph's variant with 8-bit weights and activations.

    Weights by channel; the activations' ranges are those of these pictures. Weights have 7 bits:
    processors without VNNI add pairs of products in 16 bits, which would overflow.

    Args:
        path: the graph.
        target: where the variant goes.
        pictures: (N, S, S, 3), of the training set.

    Raises:
        UserError: the extra is not installed.
    """
    with extra(*EXTRA):
        import onnx  # noqa: PLC0415
        from onnxruntime import quantization as q  # noqa: PLC0415

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        """Yields the pictures, a batch at a time."""

        def __init__(self) -> None:
            starts = range(0, len(pictures), BATCH)
            self.batches = iter([{"pictures": pictures[i : i + BATCH]} for i in starts])

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.batches, None)

    with _hushed(None):  # it speaks through the root logger
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
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    onnx.helper.set_model_props(written, facts)
    onnx.save(written, target)


@contextmanager
def _hushed(logger: str | None) -> Iterator[None]:
    """Keep a library's warnings, which are about its own working, from the user."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries' deprecations among each other
            yield
    finally:
        log.setLevel(before)
