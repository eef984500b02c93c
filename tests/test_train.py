"""Training: what it writes, what it repeats to the bit, and what it refuses."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.making import Notes, make_split, update_digests

from hundredfold import Config, Dataset, UserError, evaluate, train
from hundredfold.data.dataset import Split
from hundredfold.support.device import has_matrix_units, memory_format, pick_device


def test_training_learns_and_writes_its_run(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, epochs=12, lr=0.5), tiny, quiet=True)
    names = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    assert names == {
        "config.json",
        "environment.json",
        "model.json",
        "weights.safetensors",
        "history.jsonl",
        "metrics.json",
        "test_logits.npz",
        "figures/curves.png",
    }
    assert run.finished
    decided: dict[str, Any] = {"fit": "crop", "balance": "none"}
    decided["precision"] = "bfloat16" if has_matrix_units() else "float32"
    assert run.config() == dataclasses.replace(
        tiny_config, epochs=12, lr=0.5, data="tiny", **decided
    )
    assert [epoch.epoch for epoch in run.history()] == list(range(1, 13))
    assert all(
        len(epoch.lr) == len(epoch.loss) == 5 for epoch in run.history()
    )  # 72 of 96 pictures are for training
    assert run.history()[-1].train_loss < run.history()[0].train_loss
    assert run.metrics()["test"]["fine_top1"] > 0.7
    assert run.metrics()["test_pictures"] == 24
    assert run.environment()["data_sha256"] == tiny.digest()


def test_recorded_logits_give_the_recorded_metrics(tiny: Dataset, tiny_config: Config) -> None:
    run = train(tiny_config, tiny, quiet=True)
    stored = np.load(run.path / "test_logits.npz", allow_pickle=False)
    assert stored["labels"].tolist() == tiny.test.labels.tolist()
    for view, key in (("test", "logits"), ("test_flip", "flip_logits")):
        right = (stored[key].argmax(1) == stored["labels"]).mean()
        assert run.metrics()[view]["fine_top1"] == pytest.approx(right)


def test_evaluate_repeats_the_metrics_to_the_last_digit(tmp_path: Path) -> None:
    config = Config(data="sample", widths=(8, 8), epochs=1, out=str(tmp_path), device="cpu")
    run = train(config, quiet=True)
    metrics = evaluate(run.path)
    assert metrics["test"] == run.metrics()["test"]
    assert metrics["test_flip"] == run.metrics()["test_flip"]
    with pytest.raises(UserError, match=r"is not the data that .* was trained on"):
        environment = json.loads((run.path / "environment.json").read_text())
        environment["data_sha256"] = "0"
        (run.path / "environment.json").write_text(json.dumps(environment))
        update_digests(run)
        evaluate(run)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "sizes": (24, 32), "epochs": 1.5}])
def test_the_same_seed_gives_the_same_bits(
    changes: dict[str, Any], tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, **changes)
    torch.rand(5)  # the global generator must have no influence
    first = train(config, tiny, quiet=True)
    before = torch.get_rng_state()
    second = train(config, tiny, quiet=True)
    assert torch.get_rng_state().equal(before)  # and must not change
    other = train(dataclasses.replace(config, seed=1), tiny, quiet=True)
    blobs = [(run.path / "weights.safetensors").read_bytes() for run in (first, second, other)]
    assert blobs[0] == blobs[1] != blobs[2]
    assert [e.loss for e in first.history()] == [e.loss for e in second.history()]
    assert len({run.path for run in (first, second, other)}) == 3


def test_dropout_is_reproducible(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, model="resnet9", widths=(4, 4, 8, 8))
    runs = [train(config, tiny, quiet=True) for _ in range(2)]
    assert runs[0].history()[-1].loss == runs[1].history()[-1].loss


def test_without_validation_all_pictures_are_for_training(
    tiny: Dataset, tiny_config: Config
) -> None:
    run = train(dataclasses.replace(tiny_config, validation=0.0, epochs=1), tiny, quiet=True)
    assert run.history()[0].validation == {}
    assert len(run.history()[0].loss) == 6
    assert run.metrics()["validated_on"] is None


def test_validation_on_the_test_set_gives_its_metrics(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, validate_on="test", validation=0.0, epochs=1)
    run = train(config, tiny, quiet=True)
    assert run.history()[-1].validation == run.metrics()["test"]
    assert run.metrics()["validated_on"] == "test"


def test_coarse_labels_train_a_coarse_model(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, labels="coarse"), tiny, quiet=True)
    assert run.info().classes == ("low", "high")
    right = run.test_logits()["logits"].argmax(1) == tiny.with_labels("coarse").test.labels
    assert run.metrics()["test"]["coarse_top1"] == pytest.approx(right.double().mean().item())
    for metrics in (
        run.metrics()["test"],
        run.metrics()["test_flip"],
        run.history()[-1].validation,
    ):
        assert metrics.keys() == {"loss", "coarse_top1", "macro_recall", "macro_f1", "ece"}


def test_a_loss_that_is_not_finite_stops_with_advice(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, lr=1e30, epochs=3)
    with pytest.raises(UserError, match=r"no longer finite in epoch .*lower --lr"):
        train(config, tiny, quiet=True)


def test_training_runs_under_autocast(tiny: Dataset, tiny_config: Config) -> None:
    exact, mixed = (
        train(dataclasses.replace(tiny_config, precision=precision), tiny, quiet=True)
        for precision in ("float32", "bfloat16")
    )
    assert mixed.history()[0].loss != exact.history()[0].loss
    np.testing.assert_allclose(mixed.history()[0].loss[0], exact.history()[0].loss[0], rtol=0.02)


def test_a_wrong_configuration_leaves_no_run_behind(tiny: Dataset, tiny_config: Config) -> None:
    for changes in ({"widths": (8,) * 9}, {"fit": "pad"}):
        with pytest.raises(UserError):
            train(dataclasses.replace(tiny_config, **changes), tiny, quiet=True)
    assert not Path(tiny_config.out).exists()


def test_two_pictures_are_enough_for_a_step(tiny_config: Config) -> None:
    two = Dataset(source="two", train=make_split(2, 2), test=make_split(1, 1), classes=("a", "b"))
    run = train(dataclasses.replace(tiny_config, epochs=1), two, quiet=True)
    assert len(run.history()[0].loss) == 1
    assert "coarse_top1" not in run.metrics()["test"]
    assert "fine_top5" not in run.metrics()["test"]
    one = dataclasses.replace(two, train=Split(two.train.images[:1], two.train.labels[:1]))
    with pytest.raises(UserError, match="at least 2 pictures"):
        train(tiny_config, one, quiet=True)


def test_validation_pictures_that_are_missing_or_not_used_are_said(
    tiny: Dataset, tiny_config: Config
) -> None:
    own = dataclasses.replace(tiny, validation=make_split(12, 6, 3))
    few = dataclasses.replace(tiny, train=tiny.train[:12])
    for dataset, changes, sentence in (
        (tiny, {"validation": 0.2}, None),
        (own, {"validation": 0.2}, None),
        (own, {"validation": 0.0}, "--validation 0 has no effect"),
        (own, {"validation": 0.0, "validate_on": "test"}, "because of --validate-on test"),
        (few, {"validation": 0.01}, "With --validation 0.01, no picture can be held out"),
    ):
        display = Notes()
        config = dataclasses.replace(tiny_config, epochs=0.1, **changes)
        train(config, dataset, display=display)
        said = " ".join(display.said)
        assert (sentence in said) if sentence else ("validation" not in said), said


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, [2]), (0.01, [1]), (2.4, [5, 5, 2])])
def test_a_run_may_end_within_an_epoch(
    epochs: float, steps: list[int], tiny: Dataset, tiny_config: Config
) -> None:
    run = train(dataclasses.replace(tiny_config, epochs=epochs), tiny, quiet=True)
    assert [len(epoch.loss) for epoch in run.history()] == steps
    assert run.history()[-1].pictures == min(16 * steps[-1], 72)
    assert run.history()[-1].progress == 1
    assert run.finished


def test_devices_are_chosen_or_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "cuda:256", "abacus", "xpu"):
        with pytest.raises(UserError, match=f"--device {name} (is|must be)"):
            pick_device(name)
    assert memory_format(torch.device("cpu")) is torch.channels_last
    assert memory_format(torch.device("mps")) is torch.contiguous_format


PAGES = """
import resource, torch
from hundredfold.support.device import keep_memory
def faults():
    for number in range(13):
        if number == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
without = faults()
keep_memory()
print(without, faults())
"""
"""Prints the page faults of ten tensors of 64 MiB, one after the other, without and with
keep_memory."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_kept_memory_is_reused_without_page_faults() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.check_output([sys.executable, "-c", PAGES], env=others)
    without, kept = map(int, output.split())
    assert kept < without / 2


SETUP_ALONE = """
import ctypes, torch
from hundredfold import Config, load_sample
import hundredfold.support.device as device
calls = []
libc = type("Libc", (), {"mallopt": lambda *_: 0})
load = ctypes.CDLL
device.ctypes.CDLL = lambda path: load(path) if path else calls.append(1) or libc
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state
from hundredfold.training.loop import train_events
setup = make_setup(Config(data="sample", widths=(4, 4)), load_sample(), torch.device("cpu"))
state = first_state(setup)
before = len(calls)
next(train_events(state, setup))
print(before, len(calls))
"""
"""Prints how often the allocator was changed before and after the first step."""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_only_training_changes_the_allocator() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.check_output([sys.executable, "-c", SETUP_ALONE], env=others)
    assert output.split() == [b"0", b"1"]
