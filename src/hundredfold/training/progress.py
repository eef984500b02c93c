"""What training shows: a header, a live line, a row for each epoch, and a summary."""

import dataclasses
import json
import math
import shlex
import textwrap
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hundredfold.config import Config
from hundredfold.metrics.calibration import FEW_PICTURES
from hundredfold.metrics.scores import (
    INTERVAL,
    VIEWS,
    describe_cross_validation,
    describe_test,
    format_metric,
    metric_rows,
    top1_key,
)
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.support.console import command, console, duration, escape, make_table
from hundredfold.support.jsonio import to_json
from hundredfold.support.text import plural, printable
from hundredfold.training.loop import StepRecord

REFRESH = 0.5
"""Time in seconds between two readings of the loss, which has to be waited for on a GPU."""


class Display:
    """Shows a training in the terminal.

    As a context manager, it shows the live line as well, if the output is a terminal.
    """

    def __init__(self, quiet: bool = False, *, verbose: bool = False) -> None:
        self.out = Console(quiet=True) if quiet else console
        self.verbose = verbose
        self.noted: set[str] = set()
        self.progress = Progress(
            TextColumn("{task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.out,
            transient=True,
            expand=True,
            disable=not self.out.is_terminal,
        )
        self.task = self.progress.add_task("train", total=1.0, epoch="", status="")
        self.config = Config()
        self.pictures = 0
        self.has_header = False
        self.last_update = self.started = time.perf_counter()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def _print(self, output: Any = "") -> None:
        """Print. If nobody reads the output any more, training continues without it."""
        try:
            self.out.print(output)
        except BrokenPipeError:
            self.out = Console(quiet=True)

    def note(self, text: str) -> None:
        """Show an important sentence; the same one is shown only once."""
        if text not in self.noted:
            self.noted.add(text)
            self._show_note(text)

    def _show_note(self, text: str) -> None:
        self._print(f"[yellow]{escape(text)}[/]")

    def detail(self, text: str) -> None:
        """Show a sentence if the output is verbose."""
        if self.verbose:
            self._print(f"[dim]{escape(text)}[/]")

    def start(self, run: Run, config: Config, lines: list[str]) -> None:
        """Show what is about to be trained."""
        self._print(f"[bold]{escape(config.name)}[/] -> {escape(str(run))}")
        for line in lines:
            self._print(f"  {escape(line)}")
        if config.validate_on == "test":
            self.note(
                "  Each epoch is evaluated on the TEST set, as in the tutorial: "
                "do not use these results to choose any setting."
            )
        self.config, self.started = config, time.perf_counter()

    def step(self, step: StepRecord, epochs_done: int, progress: float) -> None:
        """Update the live line after a step, at a progress of 0..1."""
        self.pictures += step.pictures
        epoch = epochs_done + 1
        position = f"epoch {epoch}/{max(math.ceil(self.config.epochs), epoch)}"
        self.progress.update(self.task, completed=progress, epoch=position)
        now = time.perf_counter()
        if not self.progress.disable and now - self.last_update > REFRESH:
            self.last_update = now
            rate = self.pictures / (now - self.started)
            status = f"{rate:,.0f} images/s  loss {step.loss.item():.3f}  lr {step.lr:.4f}"
            self.progress.update(self.task, status=status)

    def epoch(self, epoch: Epoch) -> None:
        """Show the row of an epoch, after the header if it is the first."""
        columns = epoch_columns(epoch, self.config)
        if not self.has_header:
            self.has_header = True
            header = "  ".join(f"{name:>{max(len(name), 8)}}" for name in columns)
            self._print(f"\n[bold]{header}[/]")
        row = "  ".join(f"{text:>{max(len(name), 8)}}" for name, text in columns.items())
        self._print(row)

    def summary(self, run: Run, metrics: dict[str, Any]) -> None:
        """Show the results of a training, its times, and the next command."""
        self._print()
        self._print(metrics_table(metrics))
        self._print(f"{describe_test(metrics['test_pictures'], run.config().weights)}\n")
        if sentence := describe_cross_validation(metrics):
            self._print(f"{sentence}\n")
        head, training = metrics["head"], ""
        if head:
            training = f"features and head {duration(head['seconds'])}, "
        if metrics["train_seconds"]:
            rate = f"{metrics['images_per_second']:,.0f} images/s"
            training += f"training {duration(metrics['train_seconds'])} ({rate}), "
        self._print(
            f"{duration(metrics['seconds'])} in total: {training}"
            f"validation {duration(metrics['validation_seconds'])}, "
            f"test {duration(metrics['test_seconds'])}."
        )
        if (temperature := run.info().temperature) != 1:
            count = metrics["calibration_pictures"]
            few = (
                ""
                if count >= FEW_PICTURES
                else " As these pictures are few, the divisor is kept close to 1."
            )
            self._print(
                f"Probabilities are calibrated on {plural(count, 'validation picture')}: "
                f"logits are divided by {temperature:.3g}.{few}"
            )
        self._print(f"Run     {escape(str(run))}")
        if run.curves.exists():
            self._print(f"Curves  {escape(str(run.curves))}")
        self._print(f"Next    {command()} report {escape(shlex.quote(str(run)))}")


class JsonDisplay(Display):
    """Writes one JSON object per line, for other programs."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.out = console

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}, ensure_ascii=False)
        self._print(Text(printable(line)))

    def _show_note(self, text: str) -> None:
        self._write("note", text=text)

    def start(self, run: Run, config: Config, lines: list[str]) -> None:
        """Write the folder and the configuration of the run."""
        self._write("start", run=str(run), config=json.loads(to_json(config)))

    def epoch(self, epoch: Epoch) -> None:
        """Write the record of an epoch, without the values of each step."""
        record = dataclasses.asdict(epoch)
        self._write("epoch", **{k: v for k, v in record.items() if k not in ("lr", "loss")})

    def summary(self, run: Run, metrics: dict[str, Any]) -> None:
        """Write the final metrics."""
        self._write("end", run=str(run), metrics=metrics)


def epoch_columns(epoch: Epoch, config: Config) -> dict[str, str]:
    """Return the row of an epoch: texts by the heading of their columns."""
    split = "test" if config.validate_on == "test" else "val"
    columns = {
        "epoch": str(epoch.epoch),
        "lr": f"{epoch.lr[-1]:.2g}",
        "train loss": f"{epoch.train_loss:.4f}",
    }
    if epoch.validation:
        columns[f"{split} loss"] = format_metric("loss", epoch.validation["loss"])
        for level in ("fine", "coarse"):
            if (key := top1_key(level)) in epoch.validation:
                columns[f"{split} {level}"] = format_metric(key, epoch.validation[key])
    columns["images/s"] = f"{epoch.images_per_second:,.0f}"
    columns["time"] = duration(epoch.seconds + epoch.validation_seconds)
    return columns


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Return a table of the test metrics and the intervals, single view and with flip TTA."""
    count = metrics["test_pictures"]
    head = [f"test set,\n{plural(count, 'picture')}"]
    for name in VIEWS.values():  # narrow headings, so that the table has at most 80 columns
        head += [textwrap.fill(text, len(VIEWS["test_flip"])) for text in (name, INTERVAL)]
    return make_table(head, metric_rows(*(metrics[view] for view in VIEWS), count=count))
