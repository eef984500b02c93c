"""The run directory: what training writes and everything afterwards reads.

The only module that knows the names of its files. Each file is whole or not there.
"""

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hundredfold.config import Config
from hundredfold.device import memory_format
from hundredfold.errors import UserError
from hundredfold.files import expanded, hold_interrupt, save_file
from hundredfold.jsonio import from_json, parse_object, to_json
from hundredfold.models import ModelInfo, build_model

CURVES = "curves.png"
TEST_TENSORS = ("logits", "flip_logits", "labels")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: a line of history.jsonl."""

    epoch: int
    """From 1."""
    progress: float
    """Share of the schedule that is done at its end (0..1)."""
    seconds: float
    """Time spent training."""
    validation_seconds: float
    pictures: int
    """Pictures trained on; fewer than there are where the run ended within the epoch."""
    train_loss: float
    """Mean over the steps, with augmentation and label smoothing, in nats."""
    validation: dict[str, float]
    """What `metrics.measure` returns of logits as they are, not calibrated yet; empty without a
    validation split."""
    lr: list[float]
    """Learning rate of each step."""
    loss: list[float]
    """Training loss of each step."""

    @property
    def images_per_second(self) -> float:
        """Training pictures a second."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class Run:
    """A run directory. Making the object touches nothing."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    # Reading

    @property
    def config(self) -> Config:
        """The configuration, with `data` resolved to what was really read."""
        return from_json(Config, self._text("config.json"), str(self.path / "config.json"))

    @property
    def info(self) -> ModelInfo:
        """The architecture, the classes and the preparation of pictures."""
        return from_json(ModelInfo, self._text("model.json"), str(self.path / "model.json"))

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions and the data's digest."""
        return self._json("environment.json")

    @property
    def history(self) -> list[Epoch]:
        """The finished epochs."""
        if not (self.path / "history.jsonl").exists():
            return []
        lines = self._text("history.jsonl").splitlines()
        try:
            return [Epoch(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.path / 'history.jsonl'} is damaged: {error}.") from error

    @property
    def whole_history(self) -> list[Epoch]:
        """The epochs of a finished run: one at least.

        Raises:
            UserError: there is none, so the run is damaged.
        """
        if not (history := self.history):
            raise UserError(f"{self} is finished but has no history: it is damaged.")
        return history

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return (self.path / "metrics.json").exists()

    @property
    def metrics(self) -> dict[str, Any]:
        """Final metrics: `test` and `test_flip` as of `metrics.measure`, and times in seconds."""
        return self._json("metrics.json")

    @property
    def test_logits(self) -> dict[str, Tensor]:
        """Test predictions: `logits` and `flip_logits` (N, C) float32, `labels` (N,) int64."""
        path = self.path / "test_logits.npz"
        try:
            with np.load(io.BytesIO(self._bytes(path.name)), allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in TEST_TENSORS}
        except UserError:
            raise
        except Exception as error:  # zip files can be damaged in a score of ways
            raise UserError(f"{path} is damaged: {error}.") from error

    @property
    def curves(self) -> Path:
        """The figure of accuracy, losses and learning rate."""
        return self.path / "figures" / CURVES

    def model(self, device: torch.device = CPU) -> nn.Module:
        """Return the trained model on a device, in evaluation mode.

        Raises:
            UserError: no epoch was finished, or the weights do not fit model.json.
        """
        info = self.info
        path = self.path / "weights.safetensors"
        if not path.exists():
            raise UserError(f"{self.path} has no weights: its training ended in the first epoch.")
        model = build_model(info)
        try:
            model.load_state_dict(load(path.read_bytes()))
        except (SafetensorError, RuntimeError) as error:
            raise UserError(f"{path} is damaged or of another model: {error}") from error
        return model.to(device).to(memory_format=memory_format(device)).eval()

    def _bytes(self, name: str) -> bytes:
        if not self.path.is_dir():
            raise UserError(f"There is no run at {self.path}.")
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path} is not a run, or not a whole one: {error}.") from error

    def _text(self, name: str) -> str:
        try:
            return self._bytes(name).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path / name} is damaged: {error}.") from error

    def _json(self, name: str) -> dict[str, Any]:
        return parse_object(self._text(name), str(self.path / name))

    # Writing

    def start(self, config: Config, info: ModelInfo, environment: dict[str, Any]) -> None:
        """Write what is known before the first step."""
        self._write("config.json", to_json(config))
        self._write("model.json", to_json(info))
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")

    def save_epoch(self, resume: dict[str, Any]) -> None:
        """Write what going on from here will need, and of that the weights and the history.

        Args:
            resume: what `State.to_resume` returns.
        """
        buffer = io.BytesIO()
        torch.save(resume, buffer)
        blob = save({name: value.contiguous() for name, value in resume["model"].items()})
        lines = [json.dumps(epoch) + "\n" for epoch in resume["history"]]
        with hold_interrupt():  # the three belong together
            self._write("resume.pt", buffer.getvalue())
            self._write("weights.safetensors", blob)
            self._write("history.jsonl", "".join(lines))

    def finish(self, info: ModelInfo, metrics: dict[str, Any], test: dict[str, Tensor]) -> None:
        """Write what the end of training adds; what was for resuming is gone.

        Args:
            info: as at the start, but with the temperature.
            metrics: the final ones.
            test: the tensors that `test_logits` returns.
        """
        self._write("model.json", to_json(info))
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: value.numpy() for name, value in test.items()}
        np.savez_compressed(buffer, **arrays)
        self._write("test_logits.npz", buffer.getvalue())
        self._write("metrics.json", json.dumps(metrics, indent=2) + "\n")
        (self.path / "resume.pt").unlink(missing_ok=True)

    def save_report(self, page: str) -> Path:
        """Write the report's page and return its path."""
        self._write("report.html", page)
        return self.path / "report.html"

    def figure(self, name: str, content: bytes) -> Path:
        """Write a figure and return its path."""
        (self.path / "figures").mkdir(exist_ok=True)
        self._write(f"figures/{name}", content)
        return self.path / "figures" / name

    def _write(self, name: str, content: str | bytes) -> None:
        save_file(self.path / name, content.encode() if isinstance(content, str) else content)


def new_run(config: Config) -> Run:
    """Make an empty run directory `<out>/<name>-<UTC time>-s<seed>`.

    Raises:
        UserError: the folder cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{config.name}-{stamp}-s{config.seed}"
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = expanded(config.out) / (name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"Cannot make the folder {path}: {error.strerror}.") from error
        return Run(path)
    raise UserError(f"There are already a hundred runs named {name} in {config.out}.")
