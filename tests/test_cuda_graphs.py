"""Steps that a GPU replays against steps that are launched; on a CPU, that none is asked for."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from hundredfold import Config, Dataset, UserError, fast, load_data, strong
from hundredfold.training.loop import training
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
CUDA = torch.device("cuda")
SMALL = strong(widths=(16, 32, 64), batch_size=64, epochs=1.5, sizes=(24, 32))
"""37.5 batches an epoch: each ends with a smaller one, and the size changes within the first."""


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


def started(config: Config, dataset: Dataset) -> tuple[State, Setup]:
    setup = make_setup(config, dataset, CUDA)
    return first_state(setup), setup


def losses(state: State, setup: Setup) -> list[float]:
    """Train to the end; return the loss of each step."""
    list(training(state, setup))
    return [loss for epoch in state.history for loss in epoch.loss]


def test_on_a_cpu_no_step_is_recorded(sample: Dataset) -> None:
    assert not make_setup(fast(), sample, torch.device("cpu")).recorded


@needs_cuda
def test_replayed_steps_are_those_that_are_launched(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, setup = started(SMALL, sample)
    assert setup.recorded
    replayed = losses(state, setup)
    monkeypatch.setattr(Setup, "recorded", False)
    again, setup = started(SMALL, sample)
    assert replayed == losses(again, setup)
    for name, value in again.tensors.items():
        assert torch.equal(value, state.tensors[name]), name


@needs_cuda
def test_a_run_goes_on_from_any_replayed_step(sample: Dataset) -> None:
    whole, setup = started(SMALL, sample)
    expected = losses(whole, setup)
    first, _ = started(SMALL, sample)
    kept: Iterator[object] = training(first, setup)
    for _ in range(13):
        next(kept)
    second = first_state(setup)
    list(islice(training(second, setup), 7))  # what it has recorded must not outlive what it loads
    second.load({name: value.clone() for name, value in first.tensors.items()}, first.facts)
    assert losses(second, setup) == expected
    for name, value in second.tensors.items():
        assert torch.equal(value, whole.tensors[name]), name


def test_compiling_is_refused_where_nothing_is_recorded(sample: Dataset) -> None:
    with pytest.raises(UserError, match="--compile is for one CUDA GPU"):
        make_setup(fast(compile=True), sample, torch.device("cpu"))


@needs_cuda
def test_compiled_steps_begin_as_those_that_are_not(sample: Dataset) -> None:
    compiled = losses(*started(replace(SMALL, compile=True), sample))
    plain = losses(*started(SMALL, sample))
    assert compiled[:5] == pytest.approx(plain[:5], rel=0.01)
    assert compiled[-1] < compiled[0]
    assert losses(*started(replace(SMALL, compile=True), sample)) == compiled
