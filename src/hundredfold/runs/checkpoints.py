"""Checkpoints: files in a folder that carry their own checksum in their names."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hundredfold.config import Config
from hundredfold.models.info import ModelInfo
from hundredfold.runs.digests import digest
from hundredfold.runs.epoch import Epoch, HeadRecord
from hundredfold.support.errors import UserError
from hundredfold.support.files import make_folder, save_file
from hundredfold.support.jsonio import from_values, parse_object

FILES_KEPT = 2
"""Number of checkpoints in a folder. If the newest is damaged, the one before it is used."""
DIGEST_LETTERS = 32
"""Letters of a digest in the name of a checkpoint: half of it protects well against accidents."""
MODEL_PREFIX = "model."
"""Prefix of the names of the model's weights among the tensors of a checkpoint."""
METADATA_KEY = "checkpoint"
"""Key of the JSON text in the metadata of the file."""


@dataclass
class PartialEpoch:
    """Record of the finished steps of an epoch that has not ended."""

    pictures: int = 0
    seconds: float = 0.0
    lr: list[float] = field(default_factory=list)
    """Learning rate of each step."""
    loss: list[float] = field(default_factory=list)
    """Training loss of each step."""


@dataclass(frozen=True)
class ClockState:
    """The clock of a time budget (`training.clock.Clock`) at the moment of a checkpoint.

    Raises:
        ValueError: the values cannot be those of a clock.
    """

    end: float
    """Seconds from the checkpoint to the planned end of training."""
    seconds: tuple[float, ...]
    """Expected time of a step in seconds, for each phase of the run."""
    began: float
    """Seconds from the checkpoint to the start of the first step, so below 0; 0 before it."""
    expected: float
    """Time in seconds that the steps so far should have taken."""

    def __post_init__(self) -> None:
        if not (self.seconds and min(self.seconds) > 0 and self.expected >= 0):
            raise ValueError(f"a clock with {self}")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that another process needs to continue a training.

    Raises:
        ValueError: the values cannot be those of a training.
    """

    config: Config
    info: ModelInfo
    steps_done: int
    """Number of finished steps in all epochs."""
    progress: float
    """Share of the schedule that is done (0..1)."""
    history: list[Epoch]
    """Records of the finished epochs."""
    partial_epoch: PartialEpoch
    """Record of the current epoch."""
    elapsed: float
    """Time in seconds that the run has taken so far."""
    clock: ClockState | None
    """State of the clock in a run with a time budget."""
    head: HeadRecord | None
    """How the head of a pretrained model was fitted; None in another model."""
    tensors: dict[str, Tensor]
    """State of the model, the optimizer, the slow weights of lookahead and torch's generators."""

    def __post_init__(self) -> None:
        if not (0 <= self.progress <= 1 and self.steps_done >= 0 and math.isfinite(self.elapsed)):
            raise ValueError(
                f"a progress of {self.progress}, {self.steps_done} steps, {self.elapsed} seconds"
            )
        if len(self.partial_epoch.lr) != len(self.partial_epoch.loss):
            raise ValueError("as many learning rates as losses are needed")

    def weights(self) -> dict[str, Tensor]:
        """Return the state of the model by name."""
        return with_prefix(MODEL_PREFIX, self.tensors)


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, completely or not at all, and delete all but the last FILES_KEPT.

    Args:
        folder: created if it does not exist.
        checkpoint: what to write.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    values = {
        field.name: getattr(checkpoint, field.name)
        for field in dataclasses.fields(checkpoint)
        if field.name != "tensors"
    }
    text = json.dumps(values, default=dataclasses.asdict)
    write_file(folder, checkpoint.steps_done, checkpoint.tensors, text)


def write_file(folder: Path, steps_done: int, tensors: Mapping[str, Tensor], text: str) -> None:
    """Write the file of a checkpoint, whose JSON text is given; see `save_checkpoint`."""
    content = save(on_cpu(tensors), {METADATA_KEY: text})
    name = f"{steps_done:09}-{digest(content)[:DIGEST_LETTERS]}.safetensors"
    path = make_folder(folder) / name
    save_file(path, content)
    others = [other for other in _newest_first(folder) if other != path]
    # By the time of writing: damaged files with higher numbers are deleted as well.
    others.sort(key=lambda other: other.stat().st_mtime_ns, reverse=True)
    for other in others[FILES_KEPT - 1 :]:
        other.unlink(missing_ok=True)


def newest_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest undamaged checkpoint, or None if there is none.

    Args:
        folder: may be missing.
        tell: called with a sentence for the user about each damaged checkpoint.

    Raises:
        UserError: all checkpoints are damaged, or the newest is not one of this version.
    """
    paths = _newest_first(folder)
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        if path.stem.partition("-")[2] == digest(content)[:DIGEST_LETTERS]:
            return _read(path, content)
        tell(f"{path} is damaged: its checksum is wrong. It is skipped.")
    if paths:
        raise UserError(
            f"All checkpoints in {folder} are damaged. Remove that folder to start the training "
            "again from the beginning."
        )
    return None


def _read(path: Path, content: bytes) -> Checkpoint:
    """Return the checkpoint in a file with the right checksum, which anyone may have written."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = parse_object(str(header["__metadata__"][METADATA_KEY]), str(path))
        clock, head = values["clock"], values["head"]
        return Checkpoint(
            config=_config(path, values["config"]),
            info=from_values(ModelInfo, values["info"], f"The model in {path}"),
            steps_done=int(values["steps_done"]),
            progress=float(values["progress"]),
            history=[from_values(Epoch, v, f"The history in {path}") for v in values["history"]],
            partial_epoch=from_values(
                PartialEpoch, values["partial_epoch"], f"The current epoch in {path}"
            ),
            elapsed=float(values["elapsed"]),
            clock=None if clock is None else from_values(ClockState, clock, f"The clock in {path}"),
            head=None if head is None else from_values(HeadRecord, head, f"The head in {path}"),
            tensors=load(content),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a checkpoint of this version of hundredfold: {error!r}."
        ) from error


def _config(path: Path, values: Any) -> Config:
    """Return the configuration of a checkpoint, which must have every field."""
    config = from_values(Config, values, f"The configuration in {path}")
    if missing := {field.name for field in dataclasses.fields(Config)} - values.keys():
        raise UserError(
            f"{path} was written by another version of hundredfold: its configuration has no "
            f"{', '.join(sorted(missing))}."
        )
    return config


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the form in which safetensors can write them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.safetensors"), reverse=True)
