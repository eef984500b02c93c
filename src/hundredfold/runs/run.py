"""The run directory: training writes it, and everything afterwards reads it."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hundredfold.config import Config, config_from_json
from hundredfold.models.build import load_model
from hundredfold.models.info import ModelInfo
from hundredfold.runs.arrays import from_npz, to_npz
from hundredfold.runs.checkpoints import Checkpoint, newest_checkpoint, on_cpu, save_checkpoint
from hundredfold.runs.digests import digest_files, format_metrics, to_text
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.folder import (
    CHECKPOINTS,
    CONFIG_FILE,
    CURVES,
    ENVIRONMENT_FILE,
    FAILED_BATCH_FILE,
    FIGURES,
    HISTORY_FILE,
    KNOWN_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PORTABLE_FILES,
    PREDICTIONS_FILE,
    REPORT_FILE,
    VERIFIED_FILES,
    WEIGHTS_FILE,
    final_metrics,
    is_finished,
    locked,
    read_bytes,
    subfolder,
    tidy,
    write,
)
from hundredfold.support.device import placed
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.jsonio import as_json, from_json, parse_object, to_json

TEST_TENSORS = ("logits", "flip_logits", "labels")
CPU = torch.device("cpu")
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")
"""Prefix that torch.compile and DataParallel add to the names of the weights."""


@dataclasses.dataclass(frozen=True, init=False)
class Run:
    """A run directory. Creating the object neither reads nor writes anything."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", expanded(path))

    def __str__(self) -> str:
        return str(self.path)

    # Reading

    def config(self) -> Config:
        """Return the configuration; its `data` names what was actually read."""
        return config_from_json(self._text(CONFIG_FILE), str(self.path / CONFIG_FILE))

    def info(self) -> ModelInfo:
        """Return the architecture, the classes and the preparation of pictures."""
        return from_json(ModelInfo, self._text(MODEL_FILE), str(self.path / MODEL_FILE))

    def environment(self) -> dict[str, Any]:
        """Return the machine, the versions and the digest of the data."""
        return parse_object(self._text(ENVIRONMENT_FILE), str(self.path / ENVIRONMENT_FILE))

    def history(self) -> list[Epoch]:
        """Return the finished epochs."""
        path = self.path / HISTORY_FILE
        digests = final_metrics(self.path)[1] if self.finished else {}
        if not path.exists() and HISTORY_FILE not in digests:
            return []
        lines = self._text(HISTORY_FILE).splitlines()
        return [from_json(Epoch, line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]

    def nonempty_history(self) -> list[Epoch]:
        """Return the finished epochs, at least one.

        Raises:
            UserError: there is none, as in a model that was published without its history.
        """
        if not (history := self.history()):
            raise UserError(f"{self} has no history of its training.")
        return history

    @property
    def finished(self) -> bool:
        """Whether training has ended.

        Raises:
            DamagedError: it has, but the final metrics, which verify the other files, are missing.
        """
        return is_finished(self.path)

    def metrics(self) -> dict[str, Any]:
        """Return the final metrics, as `measure_model` returns them, and the times in seconds."""
        return final_metrics(self.path)[0]

    def test_logits(self) -> dict[str, Tensor]:
        """Return the test set's `logits`, `flip_logits` (N, C) float32 and `labels` (N,) int64."""
        content = read_bytes(self.path, PREDICTIONS_FILE)
        return from_npz(content, TEST_TENSORS, self.path / PREDICTIONS_FILE)

    def test_known(self) -> Tensor | None:
        """Return `Prediction.known` of the test pictures (N,); None if the model cannot say."""
        if not {KNOWN_FILE, PREDICTIONS_FILE} <= final_metrics(self.path)[1].keys():
            return None
        content = read_bytes(self.path, PREDICTIONS_FILE)
        return from_npz(content, ["known"], self.path / PREDICTIONS_FILE)["known"]

    @property
    def figures(self) -> Path:
        """The folder of figures, which need not exist."""
        return self.path / FIGURES

    @property
    def curves(self) -> Path:
        """The figure of accuracy, losses and learning rate."""
        return self.figures / CURVES

    def published_files(self) -> list[Path]:
        """Return the existing files that an experiment tracker stores, besides the figures."""
        return self._existing(*PORTABLE_FILES, KNOWN_FILE, METRICS_FILE, REPORT_FILE)

    def _existing(self, *names: str) -> list[Path]:
        return [path for name in names if (path := self.path / name).exists()]

    def weights(self) -> dict[str, Tensor]:
        """Return the model's state by name; an unfinished run's is that of its last checkpoint.

        Raises:
            UserError: there are no weights yet, or they are damaged.
        """
        if not self.finished:
            return self._last_weights()
        weights = self._tensors(WEIGHTS_FILE)
        return {WRAPPERS.sub("", name): value for name, value in weights.items()}

    def known_tensors(self) -> dict[str, Tensor]:
        """Return what `inference.known` needs; empty if the run has none.

        Raises:
            UserError: the file is damaged.
        """
        if not self.finished:
            return {}
        expected = KNOWN_FILE in final_metrics(self.path)[1]
        return self._tensors(KNOWN_FILE) if expected else {}

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load(read_bytes(self.path, name))
        except SafetensorError as error:
            raise UserError(f"{self.path / name} is damaged: {error}.") from error

    def model(self, device: torch.device = CPU) -> nn.Module:
        """Return the trained model, with its `weights`, on a device, in evaluation mode.

        Raises:
            UserError: there are no weights yet, or they are damaged or do not fit model.json.
        """
        info, weights = self.info(), self.weights()
        try:
            model = load_model(info, weights)
        except RuntimeError as error:
            text = f"The weights of {self} belong to another model or version: {error}"
            raise UserError(text) from error
        self.tidy()
        return placed(model, device).eval()

    def _last_weights(self) -> dict[str, Tensor]:
        if not (last := self.newest_checkpoint()):
            raise UserError(f"{self} has no weights: its training ended before a checkpoint.")
        if last.info != dataclasses.replace(self.info(), temperature=1.0):
            raise UserError(
                f"{self.path / MODEL_FILE} was changed after the last checkpoint. Restore it."
            )
        return last.weights()

    def newest_checkpoint(self, tell: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or None if there is none.

        Args:
            tell: called with a sentence for the user about each damaged checkpoint.

        Raises:
            UserError: all checkpoints are damaged, or the newest is not one of this version.
        """
        return newest_checkpoint(self.path / CHECKPOINTS, tell)

    def _text(self, name: str) -> str:
        return to_text(self.path / name, read_bytes(self.path, name))

    # Writing

    def folder(self, name: str) -> Path:
        """Return a folder of the run to write to, and create it if it does not exist.

        Raises:
            UserError: the folder cannot be created, or it is a link or contains one.
        """
        return subfolder(self.path, name)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from writing to this run.

        On leaving, the checkpoints of a finished run are deleted.

        Raises:
            UserError: another process is writing to the run.
        """
        return locked(self.path)

    def tidy(self) -> None:
        """Delete the checkpoints of a finished run, if training was killed before it did so."""
        tidy(self.path)

    def start(self, config: Config, info: ModelInfo, environment: Mapping[str, Any] | None) -> None:
        """Write what is known before the first step; None leaves the environment out."""
        write(self.path, CONFIG_FILE, to_json(config))
        write(self.path, MODEL_FILE, to_json(info))
        if environment is not None:
            write(self.path, ENVIRONMENT_FILE, as_json(environment))

    def add_environment(self, environment: dict[str, Any]) -> None:
        """Record the environment in which the run is resumed, after the one of its start."""
        before = self.environment()
        resumed = [*(before.get("resumed") or ()), environment]
        write(self.path, ENVIRONMENT_FILE, as_json(before | {"resumed": resumed}))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and delete old ones."""
        save_checkpoint(self.path / CHECKPOINTS, checkpoint)

    def save_history(self, history: list[Epoch]) -> None:
        """Write the finished epochs."""
        lines = [json.dumps(dataclasses.asdict(epoch)) + "\n" for epoch in history]
        write(self.path, HISTORY_FILE, "".join(lines))

    def save_batch(self, images: Tensor, labels: Tensor) -> Path:
        """Write the batch, pictures and labels, at which training failed; return its path."""
        batch = save(on_cpu({"images": images, "labels": labels}))
        return write(self.path, FAILED_BATCH_FILE, batch)

    def finish(
        self,
        weights: Mapping[str, Tensor],
        info: ModelInfo,
        metrics: Mapping[str, Any],
        test: Mapping[str, Tensor] | None = None,
        known: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the results of training, in the form in which this class returns them.

        `info` includes the temperature. Without `test`, no test predictions are written; without
        `known`, predictions do not say how familiar a picture looks.
        """
        write(self.path, WEIGHTS_FILE, save(on_cpu(weights)))
        write(self.path, MODEL_FILE, to_json(info))
        if test is not None:
            write(self.path, PREDICTIONS_FILE, to_npz(test))
        if known is not None:
            write(self.path, KNOWN_FILE, save(on_cpu(known)))
        self.save_metrics(metrics)

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics with the digest of every other file: the run is finished."""
        digests = digest_files(self._existing(*VERIFIED_FILES, KNOWN_FILE))
        write(self.path, METRICS_FILE, format_metrics(metrics, METRICS_FILE, digests))

    def save_report(self, page: str) -> Path:
        """Write the report's page and return its path."""
        return write(self.path, REPORT_FILE, page)

    def save_figure(self, name: str, content: bytes | str) -> Path:
        """Write a figure and return its path."""
        self.folder(FIGURES)
        return write(self.path, f"{FIGURES}/{name}", content)
