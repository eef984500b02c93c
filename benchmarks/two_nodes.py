"""Train on two nodes: accuracy, a killed node, a slow node, the exchange of gradients, and tuning.

    sudo python benchmarks/two_nodes.py --save

The nodes are two network namespaces of this machine, each with its own address, host name and
core. Linux, root and the command `ip` are needed.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import tyro
from common import save_result, spread
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hundredfold import Run, load_cifar100
from hundredfold.augment import prepare
from hundredfold.recipes import RECIPES
from hundredfold.runs.folder import MODEL_FILE
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.training.batches import batches
from hundredfold.training.loop import train_step, training_loss
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

NODES = {"node-a": "10.77.0.1", "node-b": "10.77.0.2"}
LINK = {"node-a": "hf-a", "node-b": "hf-b"}
PORT = 29_511
SMALL = ("fast", "--data", "sample", "--epochs", "30", "--checkpoint", "20steps")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 3
    """Number of seeds of `fast` on CIFAR-100."""
    recipe: str = "strong"
    """Recipe whose exchange of gradients is measured."""
    steps: int = 10
    """Number of steps of each way to exchange gradients."""
    exchange: bool = False
    """Measure the exchange of gradients in this process, which torchrun started."""
    save: bool = False
    """Write the result to benchmarks/results."""


def ip(*arguments: str, check: bool = True) -> None:
    """Run the command `ip`."""
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


@contextmanager
def nodes() -> Iterator[None]:
    """Make two network namespaces with a cable between them; remove them at the end."""
    try:
        ip("link", "add", LINK["node-a"], "type", "veth", "peer", "name", LINK["node-b"])
        for name, address in NODES.items():
            ip("netns", "add", name)
            ip("link", "set", LINK[name], "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", LINK[name])
            ip("-n", name, "link", "set", LINK[name], "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NODES:
            kill(name)
            ip("netns", "delete", name, check=False)


def kill(name: str) -> None:
    """Kill all processes of a node at once, as a power failure would."""
    command = ["ip", "netns", "pids", name]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def start(name: str, *command: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a command on a node, on a core of its own; its output goes to a file."""
    core = str(list(NODES).index(name) % (os.cpu_count() or 1))
    inside = f'hostname {name} && exec taskset -c {core} "$@"'
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LINK[name]}
    return subprocess.Popen(
        ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", inside, "sh", *command],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env=environment,
    )


def torchrun(name: str, *command: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a node's part of a training."""
    return start(
        name, sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes=2",
        "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={NODES['node-a']}:{PORT}",
        f"--rdzv-conf=is_host={name == 'node-a'}", "--rdzv-id=nodes", f"--local-addr={NODES[name]}",
        *command, log=log,
    )  # fmt: skip


def run_on_both(*command: str, log: Path) -> None:
    """Run a command in one process of each node."""
    started = [torchrun(name, *command, log=log) for name in NODES]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(log.read_text()[-3000:])


def train_command(*flags: str, out: Path) -> tuple[str, ...]:
    """Return what torchrun is to start."""
    return ("-m", "hundredfold", "train", *flags, "--out", str(out), "--device", "cpu")


def only_run(folder: Path) -> Run:
    """Return the run in a folder."""
    (path,) = folder.glob("*-s*")
    return Run(path)


def accuracy(seeds: int, folder: Path) -> dict[str, Any]:
    """Train `fast` on both nodes; return its figures over the seeds."""
    rows = []
    for seed in range(seeds):
        out = folder / f"seed{seed}"
        command = train_command("fast", "--data", "cifar100", "--seed", str(seed), out=out)
        run_on_both(*command, log=folder / "accuracy.log")
        rows.append(only_run(out).metrics())
        print(seed, rows[-1]["test"], flush=True)
    return {
        "fine": spread([row["test"]["fine_top1"] for row in rows]),
        "coarse": spread([row["test"]["coarse_top1"] for row in rows]),
        "seconds": spread([row["seconds"] for row in rows]),
        "pictures per second": spread([row["images_per_second"] for row in rows]),
    }


def weights(run: Run) -> bytes:
    """Return the file of a run's weights."""
    return (run.path / MODEL_FILE).read_bytes()


def killed_node(folder: Path) -> dict[str, Any]:
    """Kill a node in the middle of a training, resume on both, and compare the final weights."""
    whole, mended, log = folder / "whole", folder / "mended", folder / "killed.log"
    run_on_both(*train_command(*SMALL, out=whole), log=log)
    started = [torchrun(name, *train_command(*SMALL, out=mended), log=log) for name in NODES]
    while not any(mended.glob("*/checkpoints/[0-9]*.safetensors")):
        time.sleep(0.1)
    kill("node-b")
    killed = time.monotonic()
    code = started[0].wait()
    seconds = time.monotonic() - killed
    started[1].wait()
    run = only_run(mended)
    run_on_both("-m", "hundredfold", "resume", str(run), log=log)
    return {
        "exit code of the other node": code,
        "it ended after s": round(seconds, 1),
        "same weights": weights(run) == weights(only_run(whole)),
        "seconds of the whole training": round(only_run(whole).metrics()["seconds"], 1),
    }


def slow_node(folder: Path) -> dict[str, Any]:
    """Give half of a node's core to another program; return what the training says about it."""
    log = folder / "slow.log"
    hog = start("node-b", sys.executable, "-c", "while True: pass", log=log)
    run_on_both(*train_command(*SMALL, out=folder / "slow"), log=log)
    hog.kill()
    said = " ".join(log.read_text().split())
    place = said.find("Process 1 on") if "Process 1 on" in said else said.find("Process 0 on")
    return {"said": said[place : said.find("wait for it.", place) + 12] if place >= 0 else ""}


def tuning(folder: Path) -> dict[str, Any]:
    """Let both nodes work on one study; return how many trials each finished."""
    storage, started = f"sqlite:///{folder / 'tuning.db'}", time.monotonic()
    flags = ("--data", "sample", "--trials", "8", "--trial-epochs", "6", "--storage", storage)
    processes = [
        start(
            name, sys.executable, "-m", "hundredfold", "tune", "fast", *flags,
            "--to", str(folder / name), log=folder / f"tune-{name}.log",
        )
        for name in NODES
    ]  # fmt: skip
    codes = [process.wait() for process in processes]
    rows = (folder / "node-a" / "trials.csv").read_text().splitlines()[1:]
    return {
        "exit codes": codes,
        "trials": len(rows),
        "seconds": round(time.monotonic() - started, 1),
        "same best": len({(folder / name / "best.json").read_text() for name in NODES}) == 1,
    }


def exchange(options: Options) -> None:
    """Time steps with the exchange after the backward pass, with torch's DDP, and without any."""
    torch.set_num_threads(1)
    config, device = RECIPES[options.recipe](device="cpu"), torch.device("cpu")
    dataset = load_cifar100()
    with join_processes() as processes:
        setup, alone = (make_setup(config, dataset, device, p) for p in (processes, Processes()))
        state = first_state(setup)
        state.model.train()
        ddp = DistributedDataParallel(
            state.model, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        ways: dict[str, Callable[[Tensor, Tensor], object]] = {
            "after the backward pass": partial(train_step, state, setup),
            "DDP": partial(ddp_step, ddp, state, setup),
            "none": partial(train_step, state, alone),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for images, labels in islice(batches(setup, 0), options.steps):
            for name, step in ways.items():
                processes.barrier()
                started = time.perf_counter()
                step(images, labels)
                times[name].append(time.perf_counter() - started)
        if processes.rank == 0:
            parameters = sum(w.numel() for w in state.model.parameters() if w.requires_grad)
            medians = {name: round(statistics.median(each), 4) for name, each in times.items()}
            found = {"recipe": options.recipe, "parameters": parameters, "step seconds": medians}
            print("EXCHANGE", json.dumps(found), flush=True)


def ddp_step(
    ddp: DistributedDataParallel, state: State, setup: Setup, images: Tensor, labels: Tensor
) -> None:
    """Take a step whose gradients are exchanged while the backward pass goes on."""
    x = prepare(images, *setup.channels, setup.sizes[0])
    ddp.zero_grad(set_to_none=False)
    smoothing = setup.config.label_smoothing
    training_loss(ddp(x), labels, setup.class_weights, smoothing).backward()
    state.optimizer.step()


def measure_exchange(recipes: Sequence[str], folder: Path) -> list[Any]:
    """Time the exchange of gradients on both nodes."""
    rows = []
    for recipe in recipes:
        log = folder / f"exchange-{recipe}.log"
        run_on_both(__file__, "--exchange", "--recipe", recipe, log=log)
        lines = [line for line in log.read_text().splitlines() if line.startswith("EXCHANGE")]
        rows.append(json.loads(lines[-1].removeprefix("EXCHANGE")))
        print(rows[-1], flush=True)
    return rows


def main(options: Options) -> None:
    """Measure, print and save."""
    if options.exchange:
        exchange(options)
        return
    with nodes(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, Any] = {}
        parts: dict[str, Callable[[], Any]] = {
            "killed node": partial(killed_node, folder),
            "slow node": partial(slow_node, folder),
            "tune": partial(tuning, folder),
            "exchange": partial(measure_exchange, ("fast", "strong"), folder),
            "fast on CIFAR-100": partial(accuracy, options.seeds, folder),
        }
        for part, measure in parts.items():
            figures[part] = measure()
            print(part, figures[part], flush=True)
    if options.save:
        save_result("two-nodes", "two network namespaces with one core each", figures)


if __name__ == "__main__":
    main(tyro.cli(Options))
