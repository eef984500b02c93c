"""Progress by the clock, against simulated machines and slow sums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hundredfold.training.clock import Clock, advance, mean_seconds, part

shares = st.floats(0, 1, exclude_max=True)
times = st.lists(st.floats(0.01, 10), min_size=1, max_size=4).map(tuple)


@given(progress=shares, seconds=times)
def test_mean_seconds_equals_a_sum_over_many_slices(
    progress: float, seconds: tuple[float, ...]
) -> None:
    slices = 2000
    middles = [progress + (1 - progress) * (i + 0.5) / slices for i in range(slices)]
    slow = sum(seconds[min(int(m * len(seconds)), len(seconds) - 1)] for m in middles) / slices
    assert mean_seconds(progress, seconds) == pytest.approx(slow, abs=max(seconds) / 500)


def test_parts_are_equal() -> None:
    assert [part(step / 6, 3) for step in range(6)] == [0, 0, 1, 1, 2, 2]
    assert part(1.0, 3) == 2


def simulate(budget: float, expected: tuple[float, ...], factor: float) -> tuple[float, float]:
    """Return (when a run ends, where its last step was) on a machine slower by `factor`."""
    clock, now, progress, last = Clock(budget, expected), 0.0, 0.0, 0.0
    while progress < 1:
        now += factor * expected[part(progress, len(expected))]
        last, progress = progress, advance(progress, now, clock)
        assert progress > last
    return now, last


@given(
    steps=st.integers(60, 2000), seconds=times, factor=st.floats(0.5, 2), mean=st.floats(0.05, 2)
)
def test_a_run_ends_on_time_on_a_faster_or_slower_machine(
    steps: int, seconds: tuple[float, ...], factor: float, mean: float
) -> None:
    seconds = tuple(mean * s / (sum(seconds) / len(seconds)) for s in seconds)
    budget = steps * mean
    end, last = simulate(budget, seconds, factor)
    assert abs(end - budget) <= 0.5 * factor * max(seconds) + 1e-6  # half a step
    assert last > 1 - 3 / (budget / factor / mean)  # and the schedule came to its end


def test_at_the_expected_speed_progress_goes_in_equal_steps() -> None:
    clock, progress = Clock(10.0, (1.0,)), 0.0
    for step in range(9):
        progress = advance(progress, step + 1.0, clock)
        assert progress == pytest.approx((step + 1) / 10)
    assert advance(progress, 10.0, clock) == 1.0


def test_no_time_left_ends_the_run() -> None:
    assert advance(0.3, 11.0, Clock(10.0, (1.0, 2.0))) == 1.0


def test_a_pause_for_validation_shortens_the_rest() -> None:
    clock, now, progress = Clock(100.0, (1.0,)), 0.0, 0.0
    while progress < 1:
        last, now = progress, now + 1
        progress = advance(progress, now + (20 if progress > 0.5 else 0), clock)
    assert now + 20 == pytest.approx(100, abs=1)
    assert last > 0.95
