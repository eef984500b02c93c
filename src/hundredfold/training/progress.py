"""What training shows: a header, a live line, a row an epoch, a summary."""

import dataclasses
import json
import math
import shlex
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hundredfold.config import Config
from hundredfold.metrics.calibration import FEW_PICTURES
from hundredfold.metrics.scores import VIEWS, format_metric, metric_rows, top1_key
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.support.console import command, console, duration, escape, make_table
from hundredfold.support.jsonio import to_json
from hundredfold.support.text import plural, printable
from hundredfold.training.loop import Step

REFRESH = 0.5
"""Seconds between two readings of the loss, which make a GPU wait."""


class Display:
    """Shows a training in the terminal; `with` it for the live line, which needs a terminal."""

    def __init__(self, quiet: bool = False, *, verbose: bool = False) -> None:
        self.out = Console(quiet=True) if quiet else console
        self.verbose = verbose
        self.told: set[str] = set()
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
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
        self.done = 0
        self.headed = False
        self.shown = self.began = time.perf_counter()

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

    def _print(self, what: Any = "") -> None:
        """Print, unless whoever reads has had enough: a training does not end with its audience."""
        try:
            self.out.print(what)
        except BrokenPipeError:
            self.out = Console(quiet=True)

    def note(self, text: str) -> None:
        """Show a sentence that the user should not miss: each only once."""
        if text not in self.told:
            self.told.add(text)
            self._say(text)

    def _say(self, text: str) -> None:
        self._print(f"[yellow]{escape(text)}[/]")

    def detail(self, text: str) -> None:
        """Show a sentence for those who asked for more."""
        if self.verbose:
            self._print(f"[dim]{escape(text)}[/]")

    def start(self, run: Run, config: Config, lines: list[str]) -> None:
        """Show what is about to be trained, and the table's head."""
        self._print(f"[bold]{escape(config.name)}[/] -> {escape(str(run))}")
        for line in lines:
            self._print(f"  {escape(line)}")
        if config.validate_on == "test":
            self.note(
                "  Each epoch is judged on the TEST set, as the tutorial does: "
                "choose nothing by these figures."
            )
        self.config, self.began = config, time.perf_counter()
        self.progress.update(self.task, epoch=f"1/{math.ceil(config.epochs)}")

    def step(self, step: Step, progress: float) -> None:
        """Move the live line on by a step, to a progress of 0..1."""
        self.done += step.pictures
        self.progress.update(self.task, completed=progress)
        now = time.perf_counter()
        if not self.progress.disable and now - self.shown > REFRESH:
            self.shown = now
            rate = self.done / (now - self.began)
            status = f"{rate:,.0f} images/s  loss {step.loss.item():.3f}  lr {step.lr:.4f}"
            self.progress.update(self.task, status=status)

    def epoch(self, epoch: Epoch) -> None:
        """Add an epoch's row."""
        columns = epoch_columns(epoch, self.config)
        if not self.headed:
            self.headed = True
            head = "  ".join(f"{name:>{max(len(name), 8)}}" for name in columns)
            self._print(f"\n[bold]{head}[/]")
        row = "  ".join(f"{text:>{max(len(name), 8)}}" for name, text in columns.items())
        self._print(row)
        epochs = max(math.ceil(self.config.epochs), epoch.epoch)
        self.progress.update(self.task, epoch=f"{min(epoch.epoch + 1, epochs)}/{epochs}")

    def summary(self, run: Run, metrics: dict[str, Any]) -> None:
        """Show the end of a training: results, times, and what to do next."""
        self._print()
        self._print(metrics_table(metrics))
        self._print(
            f"{duration(metrics['seconds'])} in all: training "
            f"{duration(metrics['train_seconds'])} ({metrics['images_per_second']:,.0f} images/s), "
            f"validation {duration(metrics['validation_seconds'])}, "
            f"test {duration(metrics['test_seconds'])}."
        )
        if (temperature := run.info().temperature) != 1:
            count = metrics["calibration_pictures"]
            few = "" if count >= FEW_PICTURES else " These are few, so the divisor is kept near 1."
            self._print(
                f"Probabilities are calibrated on {plural(count, 'validation picture')}: "
                f"logits are divided by {temperature:.3g}.{few}"
            )
        self._print(f"Run     {escape(str(run))}")
        self._print(f"Curves  {escape(str(run.curves))}")
        self._print(f"Next    {command()} report {escape(shlex.quote(str(run)))}")


class JsonDisplay(Display):
    """Writes one JSON object a line for other programs; nothing else."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.out = console

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}, ensure_ascii=False)
        self._print(Text(printable(line)))

    def _say(self, text: str) -> None:
        self._write("note", text=text)

    def start(self, run: Run, config: Config, lines: list[str]) -> None:
        """Write the run's folder and its configuration."""
        self._write("start", run=str(run), config=json.loads(to_json(config)))

    def epoch(self, epoch: Epoch) -> None:
        """Write an epoch's record, without what each step had."""
        record = dataclasses.asdict(epoch)
        self._write("epoch", **{k: v for k, v in record.items() if k not in ("lr", "loss")})

    def summary(self, run: Run, metrics: dict[str, Any]) -> None:
        """Write the final metrics."""
        self._write("end", run=str(run), metrics=metrics)


def epoch_columns(epoch: Epoch, config: Config) -> dict[str, str]:
    """Return an epoch's row: heading to text."""
    judged = "test" if config.validate_on == "test" else "val"
    columns = {
        "epoch": str(epoch.epoch),
        "lr": f"{epoch.lr[-1]:.2g}",
        "train loss": f"{epoch.train_loss:.4f}",
    }
    if epoch.validation:
        columns[f"{judged} loss"] = format_metric("loss", epoch.validation["loss"])
        for level in ("fine", "coarse"):
            if (key := top1_key(level)) in epoch.validation:
                columns[f"{judged} {level}"] = format_metric(key, epoch.validation[key])
    columns["images/s"] = f"{epoch.images_per_second:,.0f}"
    columns["time"] = duration(epoch.seconds + epoch.validation_seconds)
    return columns


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Return the test metrics, single view and with flip TTA, as a table."""
    head = [f"test set, {plural(metrics['test_pictures'], 'picture')}", *VIEWS.values()]
    return make_table(head, metric_rows(*(metrics[view] for view in VIEWS)))
