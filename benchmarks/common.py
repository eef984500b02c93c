"""Helpers for all benchmarks: a description of the machine, and dated result files."""

import ast
import hashlib
import json
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hundredfold.support.environment import describe_environment

TUTORIAL_PICTURES = 8 * 50_000
"""Number of pictures that the tutorial trains on in total."""
RESULTS = Path(__file__).parent / "results"
SOURCES = Path(__file__).parents[1] / "src" / "hundredfold"
MACHINE = describe_environment(torch.device("cpu"), "")
"""The machine and the versions, including the commit at import time."""


def spread(values: list[float]) -> dict[str, Any]:
    """Return n, mean, sample standard deviation and the values."""
    return {
        "n": len(values),
        "mean": round(statistics.mean(values), 5),
        "std": round(statistics.stdev(values), 5) if len(values) > 1 else None,
        "values": [round(value, 5) for value in values],
    }


def code_digests(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the code of each source file, without comments, docstrings and imports.

    A result contains the digests of the files that decide it. tests/test_results.py compares them
    with the current files, and so finds results that are older than the code.

    Args:
        names: Paths below src/hundredfold.
    """
    return {name: _code_digest(SOURCES / name) for name in names}


def _code_digest(path: Path) -> str:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None  # a docstring
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def save_result(name: str, what: str, figures: dict[str, Any]) -> None:
    """Write figures to a file named by date, with a description `what` and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json"
    path.write_text(json.dumps({"what": what, **figures, "machine": MACHINE}, indent=2) + "\n")
    print(f"saved {path}")
