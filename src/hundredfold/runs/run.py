"""The run directory: what training writes and everything afterwards reads.

The only module that knows the names of its files. Each file is whole or not there, and what a
finished run holds is verified whenever it is read.
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

from hundredfold.runs.arrays import pack, unpack
from hundredfold.runs.checkpoints import Checkpoint, newest_checkpoint, on_cpu, save_checkpoint
from hundredfold.config import Config
from hundredfold.support.device import memory_format
from hundredfold.runs.digests import as_text, changed, digest, read_file, sealed, unsealed
from hundredfold.runs.epoch import Epoch
from hundredfold.support.errors import DamagedError, UserError
from hundredfold.support.files import expanded, make_folder, refuse_link, remove_unfinished, save_file
from hundredfold.support.jsonio import as_json, from_json, parse_object, to_json
from hundredfold.models.info import ModelInfo
from hundredfold.models.build import load_model

CONFIG, MODEL, ENVIRONMENT = "config.json", "model.json", "environment.json"
HISTORY, METRICS = "history.jsonl", "metrics.json"
WEIGHTS, PREDICTIONS = "weights.safetensors", "test_logits.npz"
REPORT, FIGURES, CHECKPOINTS = "report.html", "figures", "checkpoints"
SEALED = (CONFIG, MODEL, ENVIRONMENT, HISTORY, WEIGHTS, PREDICTIONS)
"""The files of a finished run whose digests are in its METRICS, as far as it has them."""
CURVES = "curves.png"
TEST_TENSORS = ("logits", "flip_logits", "labels")
CPU = torch.device("cpu")
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")
"""What torch.compile and DataParallel put before the names of the weights that they wrap."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, be it damaged: it has something that only runs have."""
    marks = (CONFIG, MODEL, WEIGHTS, METRICS, CHECKPOINTS)
    return any((folder / mark).exists() for mark in marks)


@dataclasses.dataclass(frozen=True, init=False)
class Run:
    """A run directory. Making the object touches nothing."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", expanded(path))

    def __str__(self) -> str:
        return str(self.path)

    # Reading

    def config(self) -> Config:
        """The configuration, with `data` resolved to what was really read."""
        return from_json(Config, self._text(CONFIG), str(self.path / CONFIG))

    def info(self) -> ModelInfo:
        """The architecture, the classes and the preparation of pictures."""
        return from_json(ModelInfo, self._text(MODEL), str(self.path / MODEL))

    def environment(self) -> dict[str, Any]:
        """Machine, versions and the data's digest."""
        return parse_object(self._text(ENVIRONMENT), str(self.path / ENVIRONMENT))

    def history(self) -> list[Epoch]:
        """The finished epochs."""
        path = self.path / HISTORY
        if not path.exists() and not (self.finished and HISTORY in self._sealed()[1]):
            return []
        lines = self._text(HISTORY).splitlines()
        return [from_json(Epoch, line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]

    def whole_history(self) -> list[Epoch]:
        """The epochs of a finished run: one at least, else a UserError says that it lacks them."""
        if not (history := self.history()):
            raise UserError(f"{self} has no history of its training.")
        return history

    @property
    def finished(self) -> bool:
        """Whether training came to its end.

        Raises:
            DamagedError: it did, but the final metrics are gone, by which the rest is verified.
        """
        lost = (self.path / WEIGHTS).exists() and not (self.path / CHECKPOINTS).exists()
        if not (found := (self.path / METRICS).exists()) and lost:
            raise DamagedError(
                f"{self} is not a whole run: it has weights, but lacks {METRICS}, by which they "
                "are verified."
            )
        return found

    def metrics(self) -> dict[str, Any]:
        """Final metrics: `test` and `test_flip` as of `metrics.measure`, and times in seconds."""
        return self._sealed()[0]

    def test_logits(self) -> dict[str, Tensor]:
        """Test predictions: `logits` and `flip_logits` (N, C) float32, `labels` (N,) int64."""
        return unpack(self._bytes(PREDICTIONS), TEST_TENSORS, self.path / PREDICTIONS)

    @property
    def curves(self) -> Path:
        """The figure of accuracy, losses and learning rate."""
        return self.path / FIGURES / CURVES

    def weights(self) -> dict[str, Tensor]:
        """The model's state by name; of a run that is not finished, that of its last checkpoint.

        Raises:
            UserError: there is none yet, or it is damaged.
        """
        if not self.finished:
            return self._last_weights()
        try:
            found = load(self._bytes(WEIGHTS))
        except SafetensorError as error:
            raise UserError(f"{self.path / WEIGHTS} is damaged: {error}.") from error
        return {WRAPPERS.sub("", name): value for name, value in found.items()}

    def model(self, device: torch.device = CPU) -> nn.Module:
        """Return the trained model, with its `weights`, on a device, in evaluation mode.

        Raises:
            UserError: there are no weights yet, or they are damaged or do not fit model.json.
        """
        info, weights = self.info(), self.weights()
        try:
            model = load_model(info, weights)
        except RuntimeError as error:
            text = f"The weights of {self} are of another model or version: {error}"
            raise UserError(text) from error
        self.tidy()
        return model.to(device).to(memory_format=memory_format(device)).eval()

    def _last_weights(self) -> dict[str, Tensor]:
        if not (last := self.checkpoint()):
            raise UserError(f"{self} has no weights: its training ended before a checkpoint.")
        if last.info != dataclasses.replace(self.info(), temperature=1.0):
            raise UserError(f"{self.path / MODEL} is not what it was at the last checkpoint.")
        return last.weights()

    def checkpoint(self, tell: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or None if there is none.

        Args:
            tell: called with a sentence for the user about each damaged checkpoint.

        Raises:
            UserError: all checkpoints are damaged, or the newest is not one of this version.
        """
        return newest_checkpoint(self.path / CHECKPOINTS, tell)

    def _sealed(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the final metrics, and the digest of each other file."""
        if not self.finished:
            raise UserError(f"{self} is not finished, or no run: it lacks {METRICS}.")
        return unsealed(self.path / METRICS, read_file(self.path / METRICS))

    def _bytes(self, name: str) -> bytes:
        """Return a file's content; of a finished run only if it is what training wrote."""
        if not self.path.is_dir():
            raise UserError(f"There is no run at {self.path}.")
        known, path = self._sealed()[1] if self.finished else None, self.path / name
        if not path.exists():
            kind = DamagedError if known and name in known else UserError
            raise kind(f"{self} is not a run, or not a whole one: it lacks {name}.")
        content = read_file(path)
        if known is not None and digest(content) != known.get(name):
            raise changed(path)
        return content

    def _text(self, name: str) -> str:
        return as_text(self.path / name, self._bytes(name))

    # Writing. Whoever made the run must not have files written elsewhere: links are refused.

    def folder(self, name: str) -> Path:
        """Return a folder of the run to write to; it is made if it is not there.

        Raises:
            UserError: it cannot be made; or it is a link, or holds one.
        """
        path = self.path / name
        refuse_link(path)
        for found in make_folder(path).iterdir():
            refuse_link(found)
        return path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing this run; the system lets go when a process ends.

        What was for resuming is gone afterwards where the run is finished.

        Raises:
            UserError: another process writes it.
        """
        folder = self.folder(CHECKPOINTS)  # goes in the end, and the lock with it
        try:
            with filelock.FileLock(folder / ".lock", timeout=0):
                for written in (self.path, folder, self.folder(FIGURES)):
                    remove_unfinished(written)  # of a process that was killed
                try:
                    yield
                finally:
                    if (self.path / METRICS).exists():
                        shutil.rmtree(folder, ignore_errors=True)
        except filelock.Timeout as error:
            raise UserError(f"Another process is training {self}: wait, or stop it.") from error

    def tidy(self) -> None:
        """Remove what was for resuming, where the end of training was killed before it could."""
        if self.finished and (self.path / CHECKPOINTS).exists():
            with suppress(UserError, OSError), self.lock():  # unless that end is now
                pass

    def add_sitting(self, environment: dict[str, Any]) -> None:
        """Note on what the run goes on, beside what it began on."""
        before = self.environment()
        sittings = [*(before.get("resumed") or ()), environment]
        self._write(ENVIRONMENT, as_json(before | {"resumed": sittings}))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and delete old ones."""
        save_checkpoint(self.path / CHECKPOINTS, checkpoint)

    def save_history(self, history: list[Epoch]) -> None:
        """Write the finished epochs."""
        lines = [json.dumps(dataclasses.asdict(epoch)) + "\n" for epoch in history]
        self._write(HISTORY, "".join(lines))

    def save_batch(self, images: Tensor, labels: Tensor) -> Path:
        """Write the batch, (B, 3, H, W) and (B,), at which training failed; return its path."""
        batch = save(on_cpu({"images": images, "labels": labels}))
        return self._write("diverged.safetensors", batch)

    def finish(
        self,
        weights: Mapping[str, Tensor],
        info: ModelInfo,
        metrics: dict[str, Any],
        test: dict[str, Tensor],
    ) -> None:
        """Write what the end of training adds.

        The model's state, its info with the temperature, `metrics` and `test_logits`.
        """
        self._write(WEIGHTS, save(on_cpu(weights)))
        self._write(MODEL, to_json(info))
        self._write(PREDICTIONS, pack(test))
        self.seal(metrics)

    def seal(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics, with the digest of each file that is there: it is finished."""
        found = [name for name in SEALED if (self.path / name).exists()]
        digests = {name: digest(read_file(self.path / name)) for name in found}
        self._write(METRICS, sealed(metrics, METRICS, digests))

    def save_report(self, page: str) -> Path:
        """Write the report's page and return its path."""
        return self._write(REPORT, page)

    def figure(self, name: str, content: bytes | str) -> Path:
        """Write a figure and return its path."""
        self.folder(FIGURES)
        return self._write(f"{FIGURES}/{name}", content)

    def _write(self, name: str, content: str | bytes) -> Path:
        refuse_link(self.path / name)
        save_file(self.path / name, content)
        return self.path / name
