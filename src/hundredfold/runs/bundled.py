"""Trained models that come with the package."""

import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from hundredfold.runs.digests import digest, format_metrics, read_metrics
from hundredfold.runs.folder import METRICS_FILE, VERIFIED_FILES, WEIGHTS_FILE
from hundredfold.runs.run import Run
from hundredfold.support.files import cache_folder, expanded, make_folder, save_file

BUNDLED = ("strong",)
"""Names of the bundled models. tools/make_weights.py makes them from runs."""
PACKED_FILE = "weights.npz"
"""The weights of a bundled model, from `pack_weights`."""
LEVELS, FEW, STEP = 63, 1000, ":step"
BY_DEFAULT = f"No run was named, so `{BUNDLED[0]}`, the model that comes with hundredfold, is used."
"""Sentence for the user who named no model."""


def is_bundled(run: Run) -> bool:
    """Return whether a run is a bundled model."""
    return run.path.parent == _folder()


def _folder() -> Path:
    return cache_folder() / "models"


def find_run(name: Run | str | Path) -> Run:
    """Return the run at a path, or the bundled model of that name if there is no such path.

    A run is returned unchanged. A bundled model is unpacked into the user's cache folder as an
    ordinary run directory; files that are damaged there are written again.

    Raises:
        UserError: the cache folder cannot be written.
    """
    if isinstance(name, Run):
        return name
    path = expanded(name)
    if str(name) not in BUNDLED or path.exists():
        return Run(path)
    source = Path(str(resources.files("hundredfold") / "weights" / str(name)))
    mark = digest((source / METRICS_FILE).read_bytes())[:12]  # it has the other files' digests
    target = make_folder(_folder() / f"{name}-{mark}")
    for file, content in _contents(source).items():
        copy = target / file
        if not copy.is_file() or copy.read_bytes() != content:
            save_file(copy, content)
    return Run(target)


def _contents(source: Path) -> dict[str, bytes]:
    """Return the files of a bundled model as an ordinary run has them, by name."""
    contents = {path.name: path.read_bytes() for path in source.iterdir()}
    contents[WEIGHTS_FILE] = save(unpack_weights(contents.pop(PACKED_FILE)))
    metrics, _ = read_metrics(source / METRICS_FILE)
    digests = {name: digest(contents[name]) for name in VERIFIED_FILES if name in contents}
    contents[METRICS_FILE] = format_metrics(metrics, METRICS_FILE, digests).encode()
    return contents


def pack_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Return weights in seven bits each, compressed.

    The weights of a convolution or a linear layer become whole numbers, -LEVELS to LEVELS, and a
    step for each output channel. Tensors of few values are kept with 16 bits.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in weights.items():
        if value.ndim > 1 and value.numel() > FEW:
            flat = value.float().flatten(1)
            step = (flat.abs().amax(1) / LEVELS).half().clamp_min(torch.finfo(torch.half).tiny)
            levels = (flat / step.float()[:, None]).round().clamp(-LEVELS, LEVELS)
            arrays[name] = levels.view_as(value).to(torch.int8).numpy()
            arrays[name + STEP] = step.numpy()
        else:
            arrays[name] = (value.half() if value.is_floating_point() else value).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_weights(content: bytes) -> dict[str, Tensor]:
    """Return the weights that `pack_weights` packed, in 16 bits."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    steps = {name: values.pop(name) for name in list(values) if name.endswith(STEP)}
    for name, step in steps.items():
        levels = values[name := name.removesuffix(STEP)]
        scaled = levels.flatten(1).float() * step.float()[:, None]
        values[name] = scaled.view(levels.shape).half()
    return values
