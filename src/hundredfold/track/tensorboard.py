"""Write a run for TensorBoard: scalars, hyperparameters with the final metrics, and figures."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hundredfold.runs.epoch import Epoch
from hundredfold.runs.folder import TENSORBOARD_FOLDER
from hundredfold.runs.run import Run
from hundredfold.support.errors import extra
from hundredfold.track.base import epoch_metrics, final_metrics, hyperparameters


class TensorBoard:
    """Writes event files to the folder `tensorboard` of the run directory."""

    def __init__(self, _: str = "") -> None:
        self.writer: Any = None
        self.step = 0

    def start(self, run: Run) -> None:
        """Start a new event file in place of an old one.

        Raises:
            UserError: the extra is not installed.
        """
        with extra("tensorboard", "TensorBoard needs"):
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra
        shutil.rmtree(run.folder(TENSORBOARD_FOLDER))
        folder = run.folder(TENSORBOARD_FOLDER)
        self.writer, self.step = SummaryWriter(str(folder)), 0

    def epoch(self, epoch: Epoch) -> None:
        """Write an epoch's metrics, and the learning rate and loss of each of its steps."""
        for lr, loss in zip(epoch.lr, epoch.loss, strict=True):
            self.step += 1
            self.writer.add_scalar("step/lr", lr, self.step)
            self.writer.add_scalar("step/loss", loss, self.step)
        for name, value in epoch_metrics(epoch).items():
            self.writer.add_scalar(f"epoch/{name}", value, epoch.epoch)
        self.writer.flush()

    def finish(self, run: Run) -> None:
        """Write the hyperparameters with the final metrics, and the figures."""
        if run.finished:
            values = {name: _plain(value) for name, value in hyperparameters(run).items()}
            self.writer.add_hparams(values, final_metrics(run), run_name=".")
        for path in sorted(run.figures.glob("*.png")):
            self.writer.add_image(f"figures/{path.stem}", _pixels(path), dataformats="HWC")
        self.writer.close()


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)


def _pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
