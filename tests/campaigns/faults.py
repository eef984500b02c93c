"""Kill trainings, damage checkpoints and fill the disk, and check that no run is lost.

`python -m campaigns.faults --kills 200` kills a training process at that many random moments, and
damages a checkpoint after a third of the kills. It compares each finished run with one that was not
disturbed: weights, history and test predictions must be identical to the bit.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from support.making import make_split

from hundredfold import Config, Dataset, Run, UserError, resume, train
from hundredfold.support.environment import describe_environment
from hundredfold.support.files import UNFINISHED

DATA = Dataset(
    source="faults", train=make_split(96, 6), test=make_split(24, 6, 1), classes=tuple("abcdef")
)
CONFIG = Config(
    name="faults", widths=(8, 16, 16), epochs=12, batch_size=16, validation=0.25, lr=0.05,
    device="cpu", checkpoint="1steps", lookahead=0.9,
)  # fmt: skip
FAILED = 9


def child(work: Callable[[], object]) -> int:
    """Call a function in a forked process, with all modules loaded; return the process number."""
    number = os.fork()
    if number:
        return number
    code = FAILED
    try:
        work()
        code = 0
    except UserError as error:
        print("error:", error, file=sys.stderr)
        code = 2
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def run_in(out: Path) -> Run | None:
    """Return the run in a folder, if there is one yet."""
    paths = [path for path in out.glob("faults-*") if (path / "config.json").exists()]
    assert len(paths) <= 1
    return Run(paths[0]) if paths else None


def train_or_resume(out: Path) -> None:
    """Train in a folder, or resume the training there."""
    run = run_in(out)
    if run is None:
        train(dataclasses.replace(CONFIG, out=str(out)), DATA, quiet=True)
    elif not run.finished:
        try:
            resume(run, DATA, quiet=True)
        except UserError as error:  # do what the error advises
            if "All checkpoints" not in str(error):
                raise
            shutil.rmtree(run.path / "checkpoints")
            resume(run, DATA, quiet=True)


def result(run: Run) -> tuple[Any, ...]:
    """Return the whole result of a finished run except times."""
    times = {"seconds": 0.0, "validation_seconds": 0.0}
    history = [dataclasses.asdict(epoch) | times for epoch in run.history()]
    files = [(run.path / name).read_bytes() for name in ("weights.safetensors", "test_logits.npz")]
    return (history, run.info(), run.metrics()["test_flip"], *files)


def damage(run: Run, rng: random.Random) -> str:
    """Damage a checkpoint in a random place; return how."""
    paths = sorted((run.path / "checkpoints").glob("*.safetensors"))
    if not paths:
        return "nothing to damage yet"
    path = rng.choice(paths)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        path.write_bytes(content[:place])
        return "checkpoint cut"
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return "bit of a checkpoint flipped"


def kill_until_done(out: Path, seconds: float, rng: random.Random, counts: Counter[str]) -> Run:
    """Train in a folder until a process finishes. Each is killed within `seconds` of its start."""
    while True:
        number = child(lambda: train_or_resume(out))
        time.sleep(rng.uniform(0, seconds))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        run = run_in(out)
        if os.WIFEXITED(status):  # it finished before the kill
            assert os.WEXITSTATUS(status) == 0, "a process failed"
            assert run
            return run
        counts["kills"] += 1
        counts["kills within a write"] += bool(list(out.rglob(f"*{UNFINISHED}")))
        counts["kills before there was a run"] += run is None
        if run and not run.finished and rng.random() < 1 / 3:
            counts[damage(run, rng)] += 1


def campaign(kills: int, seed: int = 0) -> Counter[str]:
    """Kill trainings until the number of kills is reached; return the counts.

    Raises:
        AssertionError: A run was lost, or its result differs from that of an undisturbed run.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        assert os.waitpid(child(lambda: train_or_resume(Path(name) / "undisturbed")), 0)[1] == 0
        seconds = time.perf_counter() - started
        undisturbed = run_in(Path(name) / "undisturbed")
        assert undisturbed
        while counts["kills"] < kills:
            out = Path(name) / str(counts["runs"])
            run = kill_until_done(out, seconds, rng, counts)
            assert result(run) == result(undisturbed), f"{run} has another result"
            assert not list(run.path.rglob(f"*{UNFINISHED}")), "unfinished files are left"
            counts["runs"] += 1
            shutil.rmtree(out)
    return counts


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Mount a disk of the given size in bytes in memory.

    Raises:
        OSError: The disk cannot be mounted, for example because the user is not root.
    """
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def full_disks(rounds: int, seed: int = 0) -> Counter[str]:
    """Fill the disk at a random moment of a training, free it, resume, and compare the results.

    Raises:
        AssertionError: A run was lost, or its result differs from that on a disk with room.
        OSError: No small disk can be mounted.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    with small_disk(2**20) as disk:
        started = time.perf_counter()
        assert os.waitpid(child(lambda: train_or_resume(disk / "undisturbed")), 0)[1] == 0
        seconds = (time.perf_counter() - started) / 2
        undisturbed = run_in(disk / "undisturbed")
        assert undisturbed
        want = result(undisturbed)
        shutil.rmtree(disk / "undisturbed")
        for _ in range(rounds):
            number = child(lambda: train_or_resume(disk / "out"))
            while run_in(disk / "out") is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, seconds))
            with contextlib.suppress(OSError):
                (disk / "filler").write_bytes(bytes(2**20))  # until the disk is full
            _, status = os.waitpid(number, 0)
            counts[f"ended with {os.WEXITSTATUS(status)} on a full disk"] += 1
            (disk / "filler").unlink()
            assert os.waitpid(child(lambda: train_or_resume(disk / "out")), 0)[1] == 0
            run = run_in(disk / "out")
            assert run
            assert result(run) == want, f"{run} has another result"
            counts["runs"] += 1
            shutil.rmtree(disk / "out")
    return counts


def main() -> None:
    """Run the campaign and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    counts = {"kills": campaign(options.kills, options.seed)}
    print(json.dumps(counts["kills"], indent=2), end="\n\n")
    try:
        counts["disks"] = full_disks(options.disks, options.seed)
        print(json.dumps(counts["disks"], indent=2), end="\n\n")
    except OSError as error:
        print(f"full disks were not tried: {error}", end="\n\n")
    if options.save:
        what = "faults: 0 lost runs and 0 differences, else there would be no result"
        machine = describe_environment(torch.device("cpu"), DATA.digest())
        text = json.dumps({"what": what, **counts, "machine": machine}, indent=2)
        options.save.write_text(text + "\n")
    print(f"0 lost runs, 0 differences; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
