"""Steps replayed on a GPU equal launched steps; on a CPU, no step is recorded."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from hundredfold import Config, Dataset, UserError, fast, load_data, strong
from hundredfold.training.loop import train_events
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
CUDA = torch.device("cuda")
SMALL = strong(widths=(16, 32, 64), batch_size=64, epochs=1.5, sizes=(24, 32))
"""It has 37.5 batches per epoch: each ends with a smaller one, and the size of the pictures changes
within the first."""


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_data("sample")


def start(config: Config, dataset: Dataset) -> tuple[State, Setup]:
    setup = make_setup(config, dataset, CUDA)
    return first_state(setup), setup


def losses(state: State, setup: Setup) -> list[float]:
    """Train to the end of the schedule; return the loss of each step."""
    list(train_events(state, setup))
    return [loss for epoch in state.history for loss in epoch.loss]


def test_on_a_cpu_no_step_is_recorded(sample: Dataset) -> None:
    assert not make_setup(fast(), sample, torch.device("cpu")).uses_cuda_graphs


@needs_cuda
@pytest.mark.parametrize("soft_labels", [False, True])
def test_replayed_steps_equal_launched_ones(
    soft_labels: bool, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    if soft_labels:
        monkeypatch.setattr(
            "hundredfold.training.batches.augment",
            lambda images, labels, _: (images, F.one_hot(labels, 100).float()),
        )
    state, setup = start(SMALL, sample)
    assert setup.uses_cuda_graphs
    replayed = losses(state, setup)
    monkeypatch.setattr(Setup, "uses_cuda_graphs", False)
    again, setup = start(SMALL, sample)
    assert replayed == losses(again, setup)
    for name, value in again.tensors.items():
        assert torch.equal(value, state.tensors[name]), name


@needs_cuda
def test_a_run_resumes_from_any_replayed_step(sample: Dataset) -> None:
    whole, setup = start(SMALL, sample)
    expected = losses(whole, setup)
    first, _ = start(SMALL, sample)
    events: Iterator[object] = train_events(first, setup)
    for _ in range(13):
        next(events)
    second = first_state(setup)
    list(islice(train_events(second, setup), 7))  # loading must discard the recorded step
    checkpoint = first.checkpoint(setup)
    copies = {name: value.clone() for name, value in checkpoint.tensors.items()}
    second.load(replace(checkpoint, tensors=copies))
    assert losses(second, setup) == expected
    for name, value in second.tensors.items():
        assert torch.equal(value, whole.tensors[name]), name


def test_compiling_is_refused_without_cuda_graphs(sample: Dataset) -> None:
    with pytest.raises(UserError, match="--compile needs one CUDA GPU"):
        make_setup(fast(compile=True), sample, torch.device("cpu"))


@needs_cuda
def test_compiled_steps_start_like_others(sample: Dataset) -> None:
    compiled = losses(*start(replace(SMALL, compile=True), sample))
    plain = losses(*start(SMALL, sample))
    assert compiled[:5] == pytest.approx(plain[:5], rel=0.01)
    assert compiled[-1] < compiled[0]
    assert losses(*start(replace(SMALL, compile=True), sample)) == compiled
