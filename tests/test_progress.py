"""What the terminal shows, and what the README says."""

import dataclasses
import io
import math
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table
from support.stopping import interrupted

from hundredfold import Config, Dataset, Run, resume, train
from hundredfold.figures.training import draw_curves
from hundredfold.support.console import _Console, byte_progress, command, duration
from hundredfold.training.progress import Display, JsonDisplay

ROOT = Path(__file__).parent.parent


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The output to a terminal that is 120 columns wide."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr("hundredfold.training.progress.console", console)
    monkeypatch.setattr("hundredfold.support.console.console", console)
    monkeypatch.setattr("hundredfold.training.progress.REFRESH", 0)
    return out


def plain(terminal: io.StringIO) -> str:
    """Return what a terminal shows, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_a_terminal_gets_a_live_line(
    terminal: io.StringIO, tiny: Dataset, tiny_config: Config
) -> None:
    train(tiny_config, tiny)
    assert re.search(r"epoch 2/2 .*images/s  loss \d\.\d+  lr \d\.\d+ .*left", plain(terminal))


def test_the_live_line_of_a_resumed_run_starts_with_its_epoch(
    terminal: io.StringIO, tiny: Dataset, tiny_config: Config
) -> None:
    resume(interrupted(tiny_config, tiny, 7), tiny)  # after two of the five steps of epoch 2
    assert set(re.findall(r"epoch \d/\d", plain(terminal))) == {"epoch 2/2"}


def test_quiet_prints_nothing(terminal: io.StringIO, tiny: Dataset, tiny_config: Config) -> None:
    train(tiny_config, tiny, quiet=True)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("kind", [Display, JsonDisplay])
def test_training_continues_when_nobody_reads_its_output(
    kind: type[Display], tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as pipe:
        monkeypatch.setattr("hundredfold.training.progress.console", _Console(file=pipe))
        display = kind()
        display.note("Here comes a training.")
        os.close(reading)  # as `head -1` does
        assert train(tiny_config, tiny, display=display).finished
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())


def test_a_download_shows_its_progress_in_a_terminal(terminal: io.StringIO) -> None:
    with byte_progress("http://host/file.tar.gz", 100, 20) as advance:
        advance(80)
    assert "file.tar.gz" in terminal.getvalue()
    assert "100/100 bytes" in terminal.getvalue()


@pytest.mark.parametrize("columns", ["0", "1", "abc", "-5", "²", "9" * 5000, "20", ""])
def test_everything_is_shown_at_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "0")
    out = io.StringIO()
    console = _Console(file=out)
    table = Table("class", "probability")
    table.add_row("leopard", "31.0%")
    console.print("A sentence of more than twenty letters.", table)
    assert "A sentence of more than twenty letters." in out.getvalue()
    assert "leopard" in out.getvalue()
    assert "31.0%" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.44, "8.4 s"),
        (59.94, "59.9 s"),
        (200, "3 min 20 s"),
        (21_240, "5 h 54 min"),
        (math.inf, "inf s"),
    ],
)
def test_durations_are_shown_in_suitable_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command_that_messages_name_runs() -> None:
    done = subprocess.run([command(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hundredfold ")


def test_the_curves_are_a_picture(run: Run) -> None:
    with Image.open(run.curves) as picture:
        assert picture.size == (1800, 540)
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours
    shown = {colour for _, colour in colours}
    assert {(0x2F, 0x7D, 0xD1), (0xE0, 0x7A, 0x1F), (0x2E, 0x9B, 0x62)} <= shown


@pytest.mark.parametrize(("epochs", "end"), [(0.5, 2 / 3), (1.0, 1.0), (1.4, 1 + 1 / 3)])
def test_the_curves_end_where_training_ended(
    epochs: float, end: float, tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, epochs=epochs, batch_size=24)  # 3 steps of 72
    run = train(config, tiny, quiet=True)
    whole = run.metrics()["epoch_pictures"]
    assert whole == 72
    accuracy, losses, _ = draw_curves(run.history(), "validation", whole).axes
    for line in (accuracy.lines[0], losses.lines[0], losses.lines[1]):
        assert np.asarray(line.get_xdata())[-1] == pytest.approx(end)


@pytest.mark.long
def test_the_readmes_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    Image.new("RGB", (60, 40), "orange").save("cat.jpg")
    exec(compile(blocks[0], "README.md", "exec"), {})
    assert "top-1 coarse" in capsys.readouterr().out


def test_the_files_that_the_readme_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
