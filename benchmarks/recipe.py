"""A recipe over several seeds: accuracy and time, n, mean and standard deviation.

    python benchmarks/recipe.py --recipe fast --seeds 3

Each seed is trained as `hundredfold train` would, and reads the test set once, at its end.
"""

import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import tyro
from common import save_result

from hundredfold import train
from hundredfold.recipes import RECIPES


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipe: str = "fast"
    """Name of the recipe."""
    seeds: int = 3
    """Seeds 0, 1, ...: one training each."""
    data: str = "cifar100"
    """As in `hundredfold train`."""
    save: bool = False
    """Write the result to benchmarks/results."""


def spread(values: list[float]) -> dict[str, Any]:
    """Return n, mean and sample standard deviation."""
    return {
        "n": len(values),
        "mean": round(statistics.mean(values), 5),
        "std": round(statistics.stdev(values), 5) if len(values) > 1 else None,
        "values": [round(value, 5) for value in values],
    }


def main() -> None:
    """Train every seed, print and save."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as out:
        make = RECIPES[options.recipe]
        runs = [train(make(seed=s, data=options.data, out=out)) for s in range(options.seeds)]
        results = [run.metrics for run in runs]
        config, environment = asdict(runs[0].config), runs[0].environment
    keys = {
        f"{view}.{key}": (view, key) for view in ("test", "test_flip") for key in results[0][view]
    }
    result = {
        "what": f"recipe {options.recipe}, one training a seed, test set read once at the end",
        **{name: spread([r[view][key] for r in results]) for name, (view, key) in keys.items()},
        "seconds": spread([r["seconds"] for r in results]),
        "images_per_second": spread([r["images_per_second"] for r in results]),
        "config": {key: value for key, value in config.items() if key not in ("seed", "out")},
        "machine": environment,
    }
    print(json.dumps(result, indent=2))
    if options.save:
        save_result(options.recipe, result)


if __name__ == "__main__":
    main()
