"""The run directory: what training writes and everything afterwards reads.

The only module that knows the names of its files. Each file is whole or not there.
"""

import dataclasses
import io
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hundredfold.checkpoints import Checkpoint, newest_checkpoint, on_cpu, save_checkpoint
from hundredfold.config import Config
from hundredfold.device import memory_format
from hundredfold.errors import UserError
from hundredfold.files import expanded, make_folder, remove_unfinished, save_file
from hundredfold.jsonio import from_json, parse_object, to_json
from hundredfold.metrics import refuse_earlier
from hundredfold.models import ModelInfo, build_model

CURVES = "curves.png"
MOST_GROWTH, FREE_BYTES = 50, 2**28
"""Times its size that a compressed file may unpack to, beyond so many bytes."""
TEST_TENSORS = ("logits", "flip_logits", "labels")
CPU = torch.device("cpu")
MODEL_PREFIX = "model."
"""What the names of a checkpoint's weights begin with."""


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

    def __post_init__(self) -> None:
        refuse_earlier(self.validation)

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
        lines, path = self._text("history.jsonl").splitlines(), self.path / "history.jsonl"
        return [from_json(Epoch, line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]

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
        found = self._json("metrics.json")
        try:
            refuse_earlier(found.get("test"))
        except UserError as error:
            raise UserError(f"{self.path / 'metrics.json'}: {error}") from error
        return found

    @property
    def test_logits(self) -> dict[str, Tensor]:
        """Test predictions: `logits` and `flip_logits` (N, C) float32, `labels` (N,) int64."""
        path = self.path / "test_logits.npz"
        content = io.BytesIO(self._bytes(path.name))
        try:
            with zipfile.ZipFile(content) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > FREE_BYTES + MOST_GROWTH * content.getbuffer().nbytes:
                raise ValueError(f"it would unpack to {size:,} bytes")
            with np.load(content, allow_pickle=False) as arrays:
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

        A run that is not finished has the weights of its last checkpoint.

        Raises:
            UserError: there are none yet, or they do not fit model.json.
        """
        info, path = self.info, self.path / "weights.safetensors"
        try:
            found = load(path.read_bytes()) if path.exists() else self._last_weights()
            with torch.device("meta"):  # takes no memory, whatever model.json claims
                build_model(info).load_state_dict(found, assign=True)
            model = build_model(info)
            model.load_state_dict(found)
        except (SafetensorError, RuntimeError) as error:
            raise UserError(f"{path} is damaged, of another model or version: {error}") from error
        return model.to(device).to(memory_format=memory_format(device)).eval()

    def _last_weights(self) -> dict[str, Tensor]:
        if not (last := self.checkpoint()):
            raise UserError(f"{self} has no weights: its training ended before a checkpoint.")
        start = len(MODEL_PREFIX)
        found = last.tensors.items()
        return {name[start:]: value for name, value in found if name.startswith(MODEL_PREFIX)}

    def checkpoint(self, tell: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
        """Return the newest whole checkpoint; None where there is none.

        Args:
            tell: takes a sentence for the user about each that is damaged.
        """
        return newest_checkpoint(self.path / "checkpoints", tell)

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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing this run; the system lets go when a process ends.

        Raises:
            UserError: another process writes it.
        """
        folder = make_folder(self.path / "checkpoints")  # goes in the end, and the lock with it
        try:
            with filelock.FileLock(folder / ".lock", timeout=0):
                for written in (self.path, folder, self.path / "figures"):
                    remove_unfinished(written)  # of a process that was killed
                yield
        except filelock.Timeout as error:
            raise UserError(f"Another process is training {self}: wait, or stop it.") from error

    def add_sitting(self, environment: dict[str, Any]) -> None:
        """Note on what the run goes on, beside what it began on."""
        before = self.environment
        sittings = [*before.get("resumed", []), environment]
        self._write("environment.json", _environment(before | {"resumed": sittings}))

    def save_checkpoint(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write where the training stands, as `State.tensors` and `State.facts` say it."""
        save_checkpoint(self.path / "checkpoints", tensors, facts)

    def save_history(self, history: list[Epoch]) -> None:
        """Write the finished epochs."""
        lines = [json.dumps(dataclasses.asdict(epoch)) + "\n" for epoch in history]
        self._write("history.jsonl", "".join(lines))

    def save_batch(self, images: Tensor, labels: Tensor) -> Path:
        """Write the batch, (B, 3, H, W) and (B,), at which training failed; return its path."""
        self._write("diverged.safetensors", save(on_cpu({"images": images, "labels": labels})))
        return self.path / "diverged.safetensors"

    def finish(
        self,
        weights: Mapping[str, Tensor],
        info: ModelInfo,
        metrics: dict[str, Any],
        test: dict[str, Tensor],
    ) -> None:
        """Write what the end of training adds; what was for resuming is gone.

        Args:
            weights: the model's state.
            info: as at the start, but with the temperature.
            metrics: the final ones.
            test: the tensors that `test_logits` returns.
        """
        self._write("weights.safetensors", save(on_cpu(weights)))
        self._write("model.json", to_json(info))
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: value.numpy() for name, value in test.items()}
        np.savez_compressed(buffer, **arrays)
        self._write("test_logits.npz", buffer.getvalue())
        self._write("metrics.json", json.dumps(metrics, indent=2) + "\n")
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def save_report(self, page: str) -> Path:
        """Write the report's page and return its path."""
        self._write("report.html", page)
        return self.path / "report.html"

    def figure(self, name: str, content: bytes | str) -> Path:
        """Write a figure and return its path."""
        (self.path / "figures").mkdir(exist_ok=True)
        self._write(f"figures/{name}", content)
        return self.path / "figures" / name

    def _write(self, name: str, content: str | bytes) -> None:
        save_file(self.path / name, content)


def new_run(config: Config, info: ModelInfo, environment: dict[str, Any]) -> Run:
    """Write what is known before the first step to `<out>/<name>-<UTC time>-s<seed>`.

    The folder appears whole: it is made under a name of its own first.

    Raises:
        UserError: the folder cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name, out = f"{config.name}-{stamp}-s{config.seed}", make_folder(expanded(config.out))
    try:
        making = out / f".{name}.{secrets.token_hex(4)}"
        making.mkdir()
    except OSError as error:
        raise UserError(f"Cannot make a folder in {out}: {error.strerror}.") from error
    try:
        save_file(making / "config.json", to_json(config))
        save_file(making / "model.json", to_json(info))
        save_file(making / "environment.json", _environment(environment))
        return Run(_named(making, name))
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _named(making: Path, name: str) -> Path:
    """Give a folder its name, or the name with a number where that is taken; return its path."""
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = making.with_name(name + suffix)
        if not path.exists():
            with suppress(OSError):  # another process may have been faster
                return making.rename(path)
    raise UserError(f"There are already a hundred runs named {name} in {making.parent}.")


def _environment(environment: Mapping[str, Any]) -> str:
    return json.dumps(environment, indent=2) + "\n"
