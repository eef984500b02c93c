"""Several processes train as one does, and lose nothing when one of them dies."""

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.pets import pictures

from hundredfold import Config, Dataset, Run, UserError, load_data, load_sample, train
from hundredfold.inference.logits import predict_logits
from hundredfold.support.distributed import Processes, join_processes
from hundredfold.training.head import refit_head
from hundredfold.training.loop import StepRecord, predict_validation, train_events
from hundredfold.training.setup import batch_at, count_steps, make_setup
from hundredfold.training.state import first_state

LAUNCH = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
SMALL = ["--data", "sample", "--widths", "8", "16", "--batch-size", "32", "--device", "cpu"]
TRAIN = [*SMALL, "--epochs", "3", "--checkpoint", "30steps"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="not Linux")


@given(pictures=st.integers(2, 300), size=st.integers(1, 5), batch=st.integers(2, 64))
def test_the_shares_of_a_batch_make_up_the_batch(pictures: int, size: int, batch: int) -> None:
    everything = list(range(pictures))
    seen = []
    for step in range(count_steps(pictures, batch)):
        places = batch_at(step, pictures, batch)
        whole = everything[step * batch : (step + 1) * batch]
        shares = [everything[Processes(rank, size).share(places)] for rank in range(size)]
        if len(whole) < 2 * size:
            assert shares == [whole] * size
        else:
            assert sorted(place for share in shares for place in share) == whole
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert min(map(len, shares)) >= 2
        seen += whole
    assert seen == everything or seen == everything[:-1]  # never a single picture


def compare_with_one() -> None:
    """Train in each of two processes, together and alone, and compare."""
    config = Config(
        data="sample", widths=(8, 16), batch_size=51, epochs=1, lr=0.01, optimizer="sgd",
        batch_norm=False, balance="loss", lookahead=0.9, precision="float32",
    )  # fmt: skip
    sample = load_sample()  # with classes of unequal size, so that their weights matter
    few = dataclasses.replace(sample, train=sample.train[:1003], test=sample.test[:50])
    with join_processes() as processes:
        assert processes.size == 2
        device = make_setup(config, few, torch_cpu()).device
        both = make_setup(config, few, device, processes)
        alone = make_setup(config, few, device)
        states = [first_state(setup) for setup in (both, alone)]
        pairs = zip(train_events(states[0], both), train_events(states[1], alone), strict=True)
        for ours, its in pairs:
            if isinstance(ours, StepRecord) and isinstance(its, StepRecord):
                assert ours.pictures == its.pictures
                assert abs(ours.loss.item() - its.loss.item()) < 1e-4
        assert states[0].history[0].pictures == states[1].history[0].pictures
        for count in (0, 11, 500, 1003):  # each picture counts once
            split = few.train[:count]
            found = predict_validation(
                states[0].model, dataclasses.replace(both, validation_split=split)
            )
            assert found.equal(predict_logits(states[0].model, split.parts(), both.info))
        compare_normalised(config, few, processes)
        setup = dataclasses.replace(both, config=dataclasses.replace(config, batch_norm=True))
        setup = dataclasses.replace(setup, info=dataclasses.replace(setup.info, batch_norm=True))
        state = first_state(setup)
        list(train_events(state, setup))
        for value in (
            *state.model.parameters(),
            *state.model.buffers(),
        ):  # the same bits in both processes
            total = value.detach().clone()
            processes.all_sum(total)
            assert total.equal(2 * value)
        assert processes.all_max(processes.rank * 7) == 7
        processes.pace.work[:] = ([0.1, 0.5, 0.1], [0.3, 0.3, 9.0])[processes.rank]
        assert processes.describe_slow() == (
            f"Process 1 on {platform.node()} takes 3.0 times as long for a step as the "
            "other processes, which have to wait for it."
        )
        assert processes.describe_slow() == ""  # no step since
    print("equal")


def compare_normalised(config: Config, few: Dataset, processes: Processes) -> None:
    """Check that statistics of all processes give the losses and the weights of one process."""
    config = dataclasses.replace(config, batch_norm=True, sync_batch_norm=True, lr=0.003)
    both = make_setup(config, few, torch_cpu(), processes)
    alone = make_setup(config, few, torch_cpu())
    states = [first_state(setup) for setup in (both, alone)]
    pairs = zip(train_events(states[0], both), train_events(states[1], alone), strict=True)
    for ours, its in pairs:
        if isinstance(ours, StepRecord) and isinstance(its, StepRecord):
            assert abs(ours.loss.item() - its.loss.item()) < 1e-3
    found, wanted = (state.model.state_dict() for state in states)
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert value.allclose(wanted[name], rtol=1e-2, atol=1e-3), name


def torch_cpu() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch.device("cpu")


@pytest.mark.long
def test_two_processes_take_the_same_steps_as_one() -> None:
    done = subprocess.run(
        [*LAUNCH, "--nproc-per-node=2", __file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 2


def two(*arguments: str, restarts: int = 0) -> list[str]:
    """Return the command that starts two processes."""
    launch = [*LAUNCH, "--nproc-per-node=2", f"--max-restarts={restarts}"]
    return [*launch, "-m", "hundredfold", *arguments]


@pytest.mark.long
def test_two_processes_fine_tune_and_return_to_the_same_head_as_one(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures", {"a": 40, "b": 40, "c": 40})
    for path in root.rglob("*.png"):  # a colour for each class, and noise
        with Image.open(path) as image:
            channel = "abc".index(path.parent.name)
            Image.blend(image, Image.new("RGB", image.size, COLOURS[channel]), 0.3).save(path)
    flags = ["--data", str(root), "--size", "32", "--epochs", "1", "--lr", "0.1", "--device", "cpu"]
    done = subprocess.run(
        two("train", "finetune", *flags), capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "Fine-tuning raised the loss" in " ".join(done.stdout.split())
    run = only_run()
    assert run.finished and len(run.history()) == 1
    setup = make_setup(run.config(), load_data(str(root), size=32), torch_cpu())
    state = first_state(setup)
    assert state.head
    assert refit_head(state.model, setup, state.head).pictures == run.metrics()["head"]["pictures"]
    for name, value in state.model.state_dict().items():
        assert value.equal(run.model().state_dict()[name]), name


COLOURS = ("red", "lime", "blue")


def only_run() -> Run:
    (path,) = Path("runs").glob("*s0")
    return Run(path)


@contextmanager
def killed_while_training(
    command: list[str], number: int = signal.SIGKILL
) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and send a signal to its second process after the first epoch."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        end = time.monotonic() + 120
        while not any(path.read_text() for path in Path("runs").glob("*/history.jsonl")):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(second_process(), number)
        yield started


def second_process() -> int:
    """Return the ID of the second process that trains in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            here = (path / "cwd").resolve() == Path.cwd().resolve()
        except OSError:
            continue
        if here and b"RANK=1" in environment:
            found.append(int(path.name))
    return found[0]


def same(one: Run, other: Run) -> bool:
    """Return whether two runs have the same weights and history, to the bit."""
    ours, its = one.model().state_dict(), other.model().state_dict()
    return all(value.equal(its[name]) for name, value in ours.items()) and [
        (epoch.loss, epoch.validation) for epoch in one.history()
    ] == [(epoch.loss, epoch.validation) for epoch in other.history()]


@needs_proc
def test_when_one_process_dies_all_end_with_an_explanation() -> None:
    with killed_while_training(two("train", *TRAIN)) as started:
        said = started.communicate(timeout=120)[0]
    assert started.returncode != 0
    assert "Another process of this training has ended" in " ".join(said.split())
    assert not only_run().finished
    assert only_run().newest_checkpoint()


@needs_proc
def test_sigterm_to_one_process_stops_all_with_a_checkpoint() -> None:
    with killed_while_training(two("train", *TRAIN), signal.SIGTERM) as started:
        said = started.communicate(timeout=120)[0]
    assert "Stopped. To continue" in said
    last = only_run().newest_checkpoint()
    assert last
    assert last.steps_done % 30 != 0  # not one of the regular checkpoints


@needs_proc
@pytest.mark.long
def test_a_restart_by_torchrun_resumes_to_the_same_bits() -> None:
    with killed_while_training(two("train", *TRAIN, restarts=1)) as started:
        said = started.communicate(timeout=120)[0]
    assert started.returncode == 0, said
    mended = only_run()
    assert len(mended.environment()["resumed"]) == 1
    subprocess.run(
        two("train", *TRAIN, "--out", "whole"), check=True, capture_output=True, timeout=120
    )
    (path,) = Path("whole").glob("*s0")
    assert same(Run(path), mended)
    assert mended.environment()["processes"] == 2


@needs_proc
@pytest.mark.long
def test_processes_with_other_settings_or_data_are_refused() -> None:
    code = (
        "import os, sys; from hundredfold.cli.main import main; "
        "sys.exit(main(['train', 'fast', *sys.argv[1:], '--lr', '0.1' + os.environ['RANK']]))"
    )
    Path("different.py").write_text(code)
    done = subprocess.run(
        [*LAUNCH, "--nproc-per-node=2", "different.py", *SMALL, "--epochs", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("different data or different settings") == 2
    assert not Path("runs").exists()


def test_several_processes_refuse_a_budget_and_need_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="--budget works only if a single process trains"):
        make_setup(Config(budget="9s"), load_sample(), torch_cpu(), Processes(0, 2))
    with pytest.raises(UserError, match=r"Cannot connect to 1 other process: .* torchrun"):
        train(Config(data="sample", device="cpu"), quiet=True)


if __name__ == "__main__":
    compare_with_one()
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads, as the command line does
