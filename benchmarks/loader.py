"""Read many JPEG files with hundredfold, and with torchvision's ImageFolder and a DataLoader.

    python benchmarks/loader.py --pictures 100000 --size 64

The script creates the JPEG files (256 px, once, in --folder), and then measures the following, each
in a separate process: one pass of ImageFolder and DataLoader with a worker for each core (resized
and cropped to the size, as uint8 tensors); the first reading by hundredfold, which decodes the
files; a reading from its cache; an epoch of batches, cropped and flipped; and an audit without the
search for near duplicates and label errors. The peak of the process's own memory is reported apart
from that with the pages of mapped files, which the system takes back when it needs them.
"""

import dataclasses
import multiprocessing
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import save_result
from PIL import Image

from hundredfold import fast
from hundredfold.audit.audit import audit
from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.data.load import load_data
from hundredfold.support.files import cache_folder
from hundredfold.training.batches import batches
from hundredfold.training.setup import make_setup

SIDE, CLASSES = 256, 100


@dataclasses.dataclass(frozen=True)
class Options:
    """Read many JPEG files with hundredfold, and with ImageFolder and a DataLoader."""

    pictures: int = 100_000
    """Number of JPEG files of 256 px."""
    size: int = 64
    """Side in pixels to which they are resized."""
    folder: Path = Path("jpegs")
    """Folder of the files; they are created if they are not there."""
    save: bool = True
    """Write the result to benchmarks/results."""


def make(folder: Path, start: int, stop: int) -> None:
    """Write pictures of smooth random colours with some grain, about 20 kB each, as photos have."""
    rng = np.random.default_rng(start)
    for i in range(start, stop):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-12, 13, (SIDE, SIDE, 1), dtype=np.int16)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"class{i % CLASSES:02}" / f"{i}.jpg"
        Image.fromarray(pixels).save(path, quality=85)


def make_all(folder: Path, count: int) -> None:
    """Write all pictures, unless they exist."""
    if (folder / f"class{(count - 1) % CLASSES:02}" / f"{count - 1}.jpg").exists():
        return
    for label in range(CLASSES):
        (folder / f"class{label:02}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, count, 2000)
        list(pool.map(make, [folder] * len(starts), starts, [min(s + 2000, count) for s in starts]))


def image_folder(options: Options) -> int:
    """Read every picture once with torchvision; return their number."""
    from torch.utils.data import DataLoader  # noqa: PLC0415  # measured in a separate process
    from torchvision.datasets import ImageFolder  # noqa: PLC0415
    from torchvision.transforms import v2  # noqa: PLC0415

    transform = v2.Compose([v2.Resize(options.size), v2.CenterCrop(options.size), v2.PILToTensor()])
    dataset = ImageFolder(options.folder, transform)
    loader = DataLoader(dataset, batch_size=512, shuffle=True, num_workers=os.cpu_count() or 1)
    return sum(len(labels) for _, labels in loader)


def read(options: Options) -> int:
    """Read every picture with hundredfold; return their number."""
    dataset = load_data(str(options.folder), lambda _: None, size=options.size)
    return len(dataset.train) + len(dataset.test)


def epoch(options: Options) -> int:
    """Take one epoch of batches of the training pictures after they have been read."""
    dataset = load_data(str(options.folder), lambda _: None, size=options.size)
    epoch.started = time.perf_counter()  # type: ignore[attr-defined]
    config = fast(data=str(options.folder), validation=0.0)
    setup = make_setup(config, dataset, torch.device("cpu"))
    return sum(len(labels) for _, labels in batches(setup, 0))


def audited(options: Options) -> int:
    """Audit the pictures' files, classes and copies."""
    return len(audit(load_audited_pictures(str(options.folder)), near=False, labels=False).pictures)


def own_memory() -> float:
    """Return the memory of this process that is not backed by a file, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) / 2**20


def measure(work: Callable[[Options], int], options: Options, queue: Any) -> None:
    """Do the work in this process; put the time and the memory that it took into the queue."""
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    count = work(options)
    seconds = time.perf_counter() - getattr(work, "started", started)
    done.set()
    watcher.join()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put(
        {
            "pictures": count,
            "seconds": round(seconds, 2),
            "pictures a second": round(count / seconds),
            "own memory, GiB": round(peak, 2),
            "with mapped files, GiB": round(whole, 2),
            "largest worker, GiB": round(children, 2),
        }
    )


def main() -> None:
    """Create the pictures, measure and save."""
    options = tyro.cli(Options)
    make_all(options.folder, options.pictures)
    shutil.rmtree(cache_folder() / "pictures", ignore_errors=True)
    context = multiprocessing.get_context("spawn")
    works = {
        "ImageFolder and DataLoader, one pass": image_folder,
        "hundredfold, first reading": read,
        "hundredfold, from its cache": read,
        "hundredfold, an epoch of batches": epoch,
        "hundredfold, audit of files and copies": audited,
    }
    results = {}
    for name, work in works.items():
        queue = context.Queue()
        process = context.Process(target=measure, args=(work, options, queue))
        process.start()
        results[name] = queue.get()
        process.join()
        print(name, results[name], flush=True)
    if options.save:
        what = f"{options.pictures:,} JPEG files of {SIDE} px, resized to {options.size} px"
        save_result("loader", what, {"results": results})


if __name__ == "__main__":
    main()
