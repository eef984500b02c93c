"""Estimate the hours and the price of a training from measured times.

    python benchmarks/cost.py

The speeds are read from the newest results of other benchmarks. Prices and the speed of the network
are assumptions, and flags.
"""

import json
from dataclasses import dataclass
from typing import Any

import tyro
from common import RESULTS

from hundredfold.support.text import plural

BYTES = 3 * 64 * 64
"""Size of a decoded picture of 64 px."""
SHRINK = (64 / 32) ** 2
"""Number of times as long as for a picture of 32 px that a step takes for one of 64 px."""
BATCH = 512
GPU_WEIGHTS = 14_050_000
"""Number of weights of the network of recipe `gpu`."""


@dataclass(frozen=True)
class Options:
    """Assumptions."""

    epochs: int = 18
    """Number of passes over the pictures."""
    pictures: tuple[int, ...] = (1_000_000, 14_000_000, 1_000_000_000)
    """Numbers of pictures of 64 px."""
    nodes: tuple[int, ...] = (1, 10, 100, 1000)
    """Numbers of machines."""
    network: float = 1.25e9
    """Bytes per second between two machines; 1.25e9 is 10 Gbit/s."""
    cpu_price: float = 0.1
    """Price of a machine with two cores per hour."""
    gpu_price: float = 3.0
    """Price of a machine with one GPU per hour."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine, and what was measured on it."""

    name: str
    speed: float
    """Training pictures of CIFAR-100 per second, in a whole run with its smaller sizes."""
    weights: int
    """Number of trained weights."""
    price: float


def newest(name: str) -> Any:
    """Return the newest result of a benchmark."""
    return json.loads(max(RESULTS.glob(f"*-{name}.json")).read_text())


def hours(machine: Machine, pictures: int, nodes: int, options: Options) -> float:
    """Return the hours of all epochs, with a batch of 512 pictures on each machine.

    A ring exchanges each gradient twice, so the time of an exchange hardly depends on the number of
    machines. It begins after the backward pass.
    """
    step = BATCH * SHRINK / machine.speed
    exchange = 2 * (nodes - 1) / nodes * 4 * machine.weights / options.network
    steps = options.epochs * pictures / (BATCH * nodes)
    return steps * (step + exchange) / 3600


def estimate(machine: Machine, pictures: int, nodes: int, options: Options) -> str:
    """Return the hours and the price as text."""
    time = hours(machine, pictures, nodes, options)
    return f"{time:,.3g} h, {time * nodes * machine.price:,.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(options: Options) -> None:
    """Print the tables."""
    (strong,) = newest("strong")["runs"].values()
    gpu, million = newest("gpu")["gpu"], newest("million")
    weights = next(row for row in newest("two-nodes")["exchange"] if row["recipe"] == "strong")
    cpu_speed, gpu_speed = strong["images_per_second"]["mean"], 9 * 50_000 / gpu["seconds"]["mean"]
    machines = (
        Machine("two CPU cores", cpu_speed, weights["parameters"], options.cpu_price),
        Machine("one H100", gpu_speed, GPU_WEIGHTS, options.gpu_price),
    )
    for machine in machines:
        print(f"\n{machine.name}: {machine.speed:,.0f} pictures of CIFAR-100 per second\n")
        head = ["pictures", *(plural(nodes, "machine") for nodes in options.nodes)]
        rows = [
            [f"{pictures:,}", *(estimate(machine, pictures, n, options) for n in options.nodes)]
            for pictures in options.pictures
        ]
        print(table(head, rows))
    train = next(phase for phase in million["phases"] if phase["name"] == "train")
    print(
        f"\nunpacking, decoding and an epoch of {million['pictures']:,}: {train['seconds']:.0f} s"
    )
    for count in options.pictures:
        print(f"{count:,} pictures take {count * BYTES / 1e9:,.0f} GB on the disk of each machine")


if __name__ == "__main__":
    main(tyro.cli(Options))
