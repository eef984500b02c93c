"""Measure the JSON endpoint of the app under load: throughput and latency.

python benchmarks/app.py --save
"""

import io
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from common import save_result
from PIL import Image


@dataclass(frozen=True)
class Options:
    """What to measure."""

    requests: int = 400
    """Number of requests for each number of clients."""
    save: bool = False
    """Write the result to benchmarks/results."""


def pictures() -> dict[str, bytes]:
    """Return two picture files: one of CIFAR's size, and one of a phone camera's."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    large = small.resize((4000, 3000), Image.Resampling.BICUBIC)
    files = {}
    for name, image, kind in (("PNG of 32 px", small, "PNG"), ("JPEG of 12 MP", large, "JPEG")):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files[name] = buffer.getvalue()
    return files


def ask(address: str, content: bytes) -> float:
    """Return the time in seconds that an answer takes."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{address}/api/predict", content, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - began


def load(address: str, content: bytes, clients: int, requests: int) -> dict[str, Any]:
    """Return the figures of several clients, each of which sends its next request at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = sorted(pool.map(lambda _: ask(address, content), range(requests)))
    took = time.perf_counter() - began
    return {
        "n": requests,
        "requests/s": round(requests / took, 1),
        "ms, median": round(1000 * statistics.median(times), 1),
        "ms, 95 of 100 within": round(1000 * times[int(0.95 * requests)], 1),
    }


def main(options: Options) -> None:
    """Measure the endpoint, print the figures, and save them on request."""
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    figures: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            address = process.stdout.readline().split()[1]
            for name, content in pictures().items():
                load(address, content, 2, 10)  # warm up
                for clients in (1, 4, 16):
                    result = load(address, content, clients, options.requests)
                    figures[f"{name}, {clients} clients"] = result
                    print(name, clients, result)
        finally:
            process.terminate()
    if options.save:
        what = "POST /api/predict of `hundredfold app`, clients on the same two cores"
        save_result("app", what, figures)


if __name__ == "__main__":
    main(tyro.cli(Options))
