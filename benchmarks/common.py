"""What every benchmark needs: the machine in words, a dated file for the result."""

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hundredfold.environment import describe

TUTORIAL_PICTURES = 8 * 50_000
"""That the tutorial trains on in all."""
RESULTS = Path(__file__).parent / "results"
MACHINE = describe(torch.device("cpu"), "")
"""The machine and the versions, the code's by the time at which it was loaded."""


def spread(values: list[float]) -> dict[str, Any]:
    """Return n, mean and sample standard deviation."""
    return {
        "n": len(values),
        "mean": round(statistics.mean(values), 5),
        "std": round(statistics.stdev(values), 5) if len(values) > 1 else None,
        "values": [round(value, 5) for value in values],
    }


def save_result(name: str, what: str, figures: dict[str, Any]) -> None:
    """Write figures under today's date, with what they are and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json"
    path.write_text(json.dumps({"what": what, **figures, "machine": MACHINE}, indent=2) + "\n")
    print(f"saved {path}")
