"""Pack a million pictures, train on the shards, kill both, and go on: time and memory.

    python benchmarks/million.py --folder /tmp/million --save
    python benchmarks/million.py --folder /tmp/million --save --cache 0
    python benchmarks/million.py --draw benchmarks/results/DATE-million.json

With `--cache 0`, pictures are decoded whenever they are needed. They are then read from their
folder, without packing them.

The pictures are JPEGs of 64 px made of random patches. Each content occurs several times, so that
making them takes no longer than reading them. 25 GB of disk are needed. Linux only.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import save_result
from matplotlib.figure import Figure
from PIL import Image

from hundredfold import Run
from hundredfold.runs.folder import MODEL_FILE

DOCS = Path(__file__).parents[1] / "docs"
CLASSES, CONTENTS, SIDE = 100, 10_000, 64
TRAIN = ("quick", "--widths", "8", "16", "32", "--epochs", "1", "--checkpoint", "200steps")
TITLES = {"program": "held by the program", "files": "mapped files, which the system may drop"}


@dataclass(frozen=True)
class Options:
    """What to measure or to draw."""

    folder: Path = Path("million")
    """Folder for the pictures, the shards, the cache and the runs; deleted at the end."""
    pictures: int = 1_000_000
    """Number of training pictures; a hundredth as many are for testing."""
    cache: str = ""
    """Most disk space for decoded pictures, as for `hundredfold train`."""
    save: bool = False
    """Write the result to benchmarks/results."""
    draw: Path | None = None
    """A result to draw into docs instead of measuring, as its name without the date."""


@dataclass
class Phase:
    """A command, and the memory of its largest process in GiB over time in seconds."""

    name: str
    seconds: float = 0.0
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """(time, held by the program, mapped files)."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for the result, with at most 200 points of memory."""
        step = max(1, len(self.memory) // 200)
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "largest program memory GiB": max((row[1] for row in self.memory), default=0.0),
            "memory": self.memory[::step],
        }


def make_content(rng: np.random.Generator, number: int) -> Image.Image:
    """Return a picture of random patches; its colours show its class."""
    patches = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    patches[:, :, number % 3] = patches[:, :, number % 3] // 4 + 2 * (number % CLASSES)
    return Image.fromarray(patches).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def make_pictures(root: Path, count: int) -> None:
    """Write pictures in train/CLASS and test/CLASS; those of equal content share a file."""
    rng = np.random.default_rng(0)
    contents = root / "contents"
    contents.mkdir(parents=True)
    for i in range(CONTENTS):
        make_content(rng, i).save(contents / f"{i}.jpg", quality=85)
    for split, number in (("train", count), ("test", count // 100)):
        folders = [root / "pictures" / split / f"class{label:02d}" for label in range(CLASSES)]
        for folder in folders:
            folder.mkdir(parents=True)
        for i in range(number):
            os.link(contents / f"{i % CONTENTS}.jpg", folders[i % CLASSES] / f"{i}.jpg")


def memory_of(pid: int) -> tuple[float, float]:
    """Return the resident memory of the largest process of a tree in GiB: (program, files)."""
    found = [(0.0, 0.0)]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
        sizes = {name: int(value.split()[0]) / 2**20 for name, value in values.items()}
        found.append((sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"]))
        found += [memory_of(int(child)) for child in children.read_text().split()]
    except (OSError, KeyError, ValueError):
        pass  # the process has ended
    return max(found)


def run(name: str, command: list[str], folder: Path, kill_when: Callable[[], bool] | None) -> Phase:
    """Run a command of hundredfold to its end, or kill it when a condition holds."""
    phase, started = Phase(name), time.monotonic()
    log = (folder / "log.txt").open("ab")
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "hundredfold", *command],
        stdout=log, stderr=log, env=environment, start_new_session=True,
    )  # fmt: skip
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            program, files = memory_of(process.pid)
            now = time.monotonic() - started
            phase.memory.append((round(now, 1), round(program, 3), round(files, 3)))
            if kill_when and kill_when():
                os.killpg(process.pid, signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    phase.seconds = time.monotonic() - started
    if code not in (0, -signal.SIGKILL if kill_when else 0):
        raise SystemExit((folder / "log.txt").read_text()[-3000:])
    print(name, phase.figures() | {"memory": "..."}, flush=True)
    return phase


def measure(options: Options) -> dict[str, Any]:
    """Make the pictures, pack them, train, kill and resume; return the figures."""
    folder, shards = options.folder, options.folder / "shards"
    make_pictures(folder, options.pictures)
    pack = ["pack", str(folder / "pictures"), "--to", str(shards), "--per-shard", "10000"]
    cache = ["--cache", options.cache] if options.cache else []
    data = folder / "pictures" if cache else shards
    train = ["train", *TRAIN, "--data", str(data), "--device", "cpu", *cache, "--out"]
    enough = max(1, options.pictures // 50_000)

    def half_packed() -> bool:
        return len(list(shards.glob("train-*.tar"))) >= enough

    def checkpoints() -> list[str]:
        return [path.name for path in (folder / "killed").glob("*/checkpoints/*.safetensors")]

    phases = []
    if not cache:
        phases += [run("pack, killed", pack, folder, half_packed), run("pack", pack, folder, None)]
        shutil.rmtree(folder / "pictures")
    size = sum(path.stat().st_size for path in shards.glob("*.tar"))
    phases += [
        run("train", [*train, str(folder / "whole")], folder, None),
        run("train, killed", [*train, str(folder / "killed")], folder, lambda: bool(checkpoints())),
    ]
    steps = max(int(name.partition("-")[0]) for name in checkpoints())
    (killed,), (whole,) = (list((folder / name).glob("*-s0")) for name in ("killed", "whole"))
    phases.append(run("resume", ["resume", str(killed)], folder, None))
    history = Run(whole).history()
    return {
        "pictures": options.pictures,
        "shards": {"files": len(list(shards.glob("*.tar"))), "GiB": round(size / 2**30, 2)},
        "steps before the resumed training": steps,
        "same weights": (killed / MODEL_FILE).read_bytes() == (whole / MODEL_FILE).read_bytes(),
        "pictures per second of training": round(history[0].pictures / history[0].seconds),
        "test accuracy": Run(whole).metrics()["test"]["fine_top1"],
        "phases": [phase.figures() for phase in phases],
    }


def draw(result: Path) -> None:
    """Draw the memory of each phase over time."""
    figures = json.loads(result.read_text())
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    offset, largest = 0.0, 0.0
    for number, phase in enumerate(figures["phases"]):
        times, program, files = (np.array(values) for values in zip(*phase["memory"], strict=True))
        for values, kind, colour in ((program, "program", "#2563a8"), (files, "files", "#bbb")):
            label = TITLES[kind] if not offset else None
            axes.plot((offset + times) / 60, values, color=colour, label=label)
        largest = max(largest, program.max(), files.max())
        axes.axvline((offset + phase["seconds"]) / 60, color="#ddd", linewidth=0.8)
        middle = (offset + phase["seconds"] / 2) / 60
        place = (middle, 1.02 + 0.05 * (number % 2))  # the names of short phases would overlap
        axes.annotate(phase["name"], place, xycoords=("data", "axes fraction"), ha="center")
        offset += phase["seconds"]
    axes.set_xlabel("minutes")
    axes.set_ylabel("GiB in the largest process")
    axes.set_ylim(0, largest * 1.15)  # room for the legend
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", ncols=2)
    picture = DOCS / f"{result.stem[len('2026-11-29-') :]}.png"
    figure.savefig(picture, dpi=150)
    print(f"drew {picture}")


def main() -> None:
    """Measure or draw."""
    options = tyro.cli(Options)
    if options.draw:
        draw(options.draw)
        return
    options.folder.mkdir()
    figures = measure(options)
    if options.save:
        name = "million-encoded" if options.cache else "million"
        how = f"with --cache {options.cache}" if options.cache else "packed into shards"
        save_result(name, f"train, kill and resume, {how}; memory of the largest process", figures)
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
