"""A campaign of faults: trainings are killed, files damaged, a disk fills; nothing may be lost.

`python -m campaigns.faults --kills 200` kills a training process at that many random moments, a
third of the times damages a checkpoint before it goes on, and compares each finished run with one
that nothing happened to: weights, history, test predictions, to the bit.
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
    """Do something in a process of its own, with all modules loaded already; return its number."""
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
    """Return the run that a folder holds by now."""
    found = [path for path in out.glob("faults-*") if (path / "config.json").exists()]
    assert len(found) <= 1
    return Run(found[0]) if found else None


def go_on(out: Path) -> None:
    """Train, or go on with the training that is there."""
    run = run_in(out)
    if run is None:
        train(dataclasses.replace(CONFIG, out=str(out)), DATA, quiet=True)
    elif not run.finished:
        try:
            resume(run, DATA, quiet=True)
        except UserError as error:  # what it says to do then
            if "All checkpoints" not in str(error):
                raise
            shutil.rmtree(run.path / "checkpoints")
            resume(run, DATA, quiet=True)


def result(run: Run) -> tuple[Any, ...]:
    """Return all that a finished run leaves, but for times."""
    times = {"seconds": 0.0, "validation_seconds": 0.0}
    history = [dataclasses.asdict(epoch) | times for epoch in run.history()]
    files = [(run.path / name).read_bytes() for name in ("weights.safetensors", "test_logits.npz")]
    return (history, run.info(), run.metrics()["test_flip"], *files)


def damage(run: Run, rng: random.Random) -> str:
    """Damage a checkpoint somewhere; return how."""
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


def killed_until_done(out: Path, seconds: float, rng: random.Random, counts: Counter[str]) -> Run:
    """Train in a folder, killed at random moments of `seconds`, until a process gets to the end."""
    while True:
        number = child(lambda: go_on(out))
        time.sleep(rng.uniform(0, seconds))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        run = run_in(out)
        if os.WIFEXITED(status):  # it was faster
            assert os.WEXITSTATUS(status) == 0, "a process failed"
            assert run
            return run
        counts["kills"] += 1
        counts["kills within a write"] += bool(list(out.rglob(f"*{UNFINISHED}")))
        counts["kills before there was a run"] += run is None
        if run and not run.finished and rng.random() < 1 / 3:
            counts[damage(run, rng)] += 1


def campaign(kills: int, seed: int = 0) -> Counter[str]:
    """Kill trainings until there were so many kills; return what was counted.

    Raises:
        AssertionError: a run was lost, or ended otherwise than without faults.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        assert os.waitpid(child(lambda: go_on(Path(name) / "whole")), 0)[1] == 0
        seconds = time.perf_counter() - started
        whole = run_in(Path(name) / "whole")
        assert whole
        while counts["kills"] < kills:
            out = Path(name) / str(counts["runs"])
            run = killed_until_done(out, seconds, rng, counts)
            assert result(run) == result(whole), f"{run} is another"
            assert not list(run.path.rglob(f"*{UNFINISHED}")), "unfinished files are left"
            counts["runs"] += 1
            shutil.rmtree(out)
    return counts


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Mount a disk of so many bytes in memory.

    Raises:
        OSError: only root may, and not everywhere.
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
    """Train on a disk that is full from a random moment on; make room; go on; compare.

    Raises:
        AssertionError: a run was lost, or ended otherwise than on a disk with room.
        OSError: no small disk can be made here.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    with small_disk(2**20) as disk:
        started = time.perf_counter()
        assert os.waitpid(child(lambda: go_on(disk / "whole")), 0)[1] == 0
        seconds = (time.perf_counter() - started) / 2
        whole = run_in(disk / "whole")
        assert whole
        want = result(whole)
        shutil.rmtree(disk / "whole")
        for _ in range(rounds):
            number = child(lambda: go_on(disk / "out"))
            while run_in(disk / "out") is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, seconds))
            with contextlib.suppress(OSError):
                (disk / "filler").write_bytes(bytes(2**20))  # until there is no room
            _, status = os.waitpid(number, 0)
            counts[f"ended with {os.WEXITSTATUS(status)} on a full disk"] += 1
            (disk / "filler").unlink()
            assert os.waitpid(child(lambda: go_on(disk / "out")), 0)[1] == 0
            run = run_in(disk / "out")
            assert run
            assert result(run) == want, f"{run} is another"
            counts["runs"] += 1
            shutil.rmtree(disk / "out")
    return counts


def main() -> None:
    """Run the campaign and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    found = {"kills": campaign(options.kills, options.seed)}
    print(json.dumps(found["kills"], indent=2), end="\n\n")
    try:
        found["disks"] = full_disks(options.disks, options.seed)
        print(json.dumps(found["disks"], indent=2), end="\n\n")
    except OSError as error:
        print(f"no full disk: {error}", end="\n\n")
    if options.save:
        what = "faults: 0 lost runs, 0 differences, or there would be no result"
        machine = describe_environment(torch.device("cpu"), DATA.digest())
        text = json.dumps({"what": what, **found, "machine": machine}, indent=2)
        options.save.write_text(text + "\n")
    print(f"0 lost runs, 0 differences; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
