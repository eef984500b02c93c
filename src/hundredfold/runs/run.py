"""The run directory: training writes it, and everything afterwards reads it.

Only this module knows the names of the files in a run directory. Every file is either complete or
absent, and the files of a finished run are verified whenever they are read.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hundredfold.config import Config, config_from_json
from hundredfold.models.build import load_model
from hundredfold.models.info import ModelInfo
from hundredfold.runs.arrays import from_npz, to_npz
from hundredfold.runs.checkpoints import Checkpoint, newest_checkpoint, on_cpu, save_checkpoint
from hundredfold.runs.digests import digest_files, format_metrics, read_file, read_metrics, to_text
from hundredfold.runs.epoch import Epoch
from hundredfold.support.device import placed
from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.files import (
    expanded,
    make_folder,
    refuse_link,
    remove_unfinished,
    save_file,
)
from hundredfold.support.jsonio import as_json, from_json, parse_object, to_json

CONFIG_FILE, MODEL_FILE, ENVIRONMENT_FILE = "config.json", "model.json", "environment.json"
HISTORY_FILE, METRICS_FILE = "history.jsonl", "metrics.json"
WEIGHTS_FILE, PREDICTIONS_FILE = "weights.safetensors", "test_logits.npz"
KNOWN_FILE = "known.safetensors"
"""How the model recognises pictures that show none of its classes; not every run has it."""
REPORT_FILE, FAILED_BATCH_FILE = "report.html", "diverged.safetensors"
EXPORT_FOLDER, TENSORBOARD_FOLDER = "export", "tensorboard"
FIGURES, CHECKPOINTS = "figures", "checkpoints"
CURVES = "curves.png"
PORTABLE_FILES = (CONFIG_FILE, MODEL_FILE, ENVIRONMENT_FILE, HISTORY_FILE, WEIGHTS_FILE)
"""The files that describe a run and hold its model."""
VERIFIED_FILES = (*PORTABLE_FILES, PREDICTIONS_FILE)
"""The files whose digests are in METRICS_FILE, and that of KNOWN_FILE if there is one."""
TEST_TENSORS = ("logits", "flip_logits", "labels")
CPU = torch.device("cpu")
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")
"""Prefix that torch.compile and DataParallel add to the names of the weights."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, complete or damaged: it has something only runs have."""
    marks = (CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE, METRICS_FILE, CHECKPOINTS)
    return any((folder / mark).exists() for mark in marks)


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
        if not path.exists() and not (self.finished and HISTORY_FILE in self._read_metrics()[1]):
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
        ended = (self.path / WEIGHTS_FILE).exists() and not (self.path / CHECKPOINTS).exists()
        has_metrics = (self.path / METRICS_FILE).exists()
        if ended and not has_metrics:
            raise DamagedError(
                f"{self} is not a complete run: it has weights, but lacks {METRICS_FILE}, which "
                "verifies them."
            )
        return has_metrics

    def metrics(self) -> dict[str, Any]:
        """Return the final metrics, as `measure_model` returns them, and the times in seconds."""
        return self._read_metrics()[0]

    def test_logits(self) -> dict[str, Tensor]:
        """Return the test set's `logits`, `flip_logits` (N, C) float32 and `labels` (N,) int64."""
        return from_npz(self._bytes(PREDICTIONS_FILE), TEST_TENSORS, self.path / PREDICTIONS_FILE)

    def test_known(self) -> Tensor | None:
        """Return `Prediction.known` of the test pictures (N,); None if the model cannot say."""
        if not {KNOWN_FILE, PREDICTIONS_FILE} <= self._read_metrics()[1].keys():
            return None
        path = self.path / PREDICTIONS_FILE
        return from_npz(self._bytes(PREDICTIONS_FILE), ["known"], path)["known"]

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
        expected = KNOWN_FILE in self._read_metrics()[1]
        return self._tensors(KNOWN_FILE) if expected else {}

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load(self._bytes(name))
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

    def _read_metrics(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the final metrics, and the digest of every other file by its name."""
        if not self.finished:
            raise UserError(
                f"{self} has no {METRICS_FILE}. Either its training is not finished, or it is not "
                "a run. `hundredfold resume` finishes a training."
            )
        return read_metrics(self.path / METRICS_FILE)

    def _bytes(self, name: str) -> bytes:
        """Return a file's content; in a finished run, only if training wrote it."""
        if not self.path.is_dir():
            raise UserError(
                f"There is no run at {self.path}. `hundredfold runs FOLDER` lists the runs of a "
                "folder."
            )
        digests, path = self._read_metrics()[1] if self.finished else None, self.path / name
        if not path.exists():
            kind = DamagedError if digests and name in digests else UserError
            raise kind(f"{self} is not a run, or not a complete one: it lacks {name}.")
        return read_file(path, digests)

    def _text(self, name: str) -> str:
        return to_text(self.path / name, self._bytes(name))

    # Writing. Links are refused: a run from elsewhere could otherwise redirect what is written.

    def folder(self, name: str) -> Path:
        """Return a folder of the run to write to, and create it if it does not exist.

        Raises:
            UserError: the folder cannot be created, or it is a link or contains one.
        """
        path = self.path / name
        refuse_link(path)
        for entry in make_folder(path).iterdir():
            refuse_link(entry)
        return path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing to this run.

        The operating system releases the lock when the process ends. On leaving, the checkpoints of
        a finished run are deleted.

        Raises:
            UserError: another process is writing to the run.
        """
        folder = self.folder(CHECKPOINTS)  # deleted at the end, and the lock file with it
        try:
            with filelock.FileLock(folder / ".lock", timeout=0):
                for written in (self.path, folder, self.folder(FIGURES)):
                    remove_unfinished(written)  # left by a process that was killed
                try:
                    yield
                finally:
                    if (self.path / METRICS_FILE).exists():
                        shutil.rmtree(folder, ignore_errors=True)
        except filelock.Timeout as error:
            raise UserError(f"Another process is training {self}: wait, or stop it.") from error

    def tidy(self) -> None:
        """Delete the checkpoints of a finished run, if training was killed before it did so."""
        if self.finished and (self.path / CHECKPOINTS).exists():
            with suppress(UserError, OSError), self.lock():  # or training is at this point now
                pass

    def start(self, config: Config, info: ModelInfo, environment: Mapping[str, Any] | None) -> None:
        """Write what is known before the first step; None leaves the environment out."""
        self._write(CONFIG_FILE, to_json(config))
        self._write(MODEL_FILE, to_json(info))
        if environment is not None:
            self._write(ENVIRONMENT_FILE, as_json(environment))

    def add_environment(self, environment: dict[str, Any]) -> None:
        """Record the environment in which the run is resumed, after the one of its start."""
        before = self.environment()
        resumed = [*(before.get("resumed") or ()), environment]
        self._write(ENVIRONMENT_FILE, as_json(before | {"resumed": resumed}))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and delete old ones."""
        save_checkpoint(self.path / CHECKPOINTS, checkpoint)

    def save_history(self, history: list[Epoch]) -> None:
        """Write the finished epochs."""
        lines = [json.dumps(dataclasses.asdict(epoch)) + "\n" for epoch in history]
        self._write(HISTORY_FILE, "".join(lines))

    def save_batch(self, images: Tensor, labels: Tensor) -> Path:
        """Write the batch, pictures and labels, at which training failed; return its path."""
        batch = save(on_cpu({"images": images, "labels": labels}))
        return self._write(FAILED_BATCH_FILE, batch)

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
        self._write(WEIGHTS_FILE, save(on_cpu(weights)))
        self._write(MODEL_FILE, to_json(info))
        if test is not None:
            self._write(PREDICTIONS_FILE, to_npz(test))
        if known is not None:
            self._write(KNOWN_FILE, save(on_cpu(known)))
        self.save_metrics(metrics)

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics with the digest of every other file: the run is finished."""
        digests = digest_files(self._existing(*VERIFIED_FILES, KNOWN_FILE))
        self._write(METRICS_FILE, format_metrics(metrics, METRICS_FILE, digests))

    def save_report(self, page: str) -> Path:
        """Write the report's page and return its path."""
        return self._write(REPORT_FILE, page)

    def save_figure(self, name: str, content: bytes | str) -> Path:
        """Write a figure and return its path."""
        self.folder(FIGURES)
        return self._write(f"{FIGURES}/{name}", content)

    def _write(self, name: str, content: str | bytes) -> Path:
        refuse_link(self.path / name)
        save_file(self.path / name, content)
        return self.path / name
