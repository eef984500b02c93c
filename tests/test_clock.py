"""Compare progress by the clock with simulated machines and with slow sums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hundredfold.training.clock import Clock, advance, mean_seconds, phase_at, restored_clock

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


def test_phases_have_equal_lengths() -> None:
    assert [phase_at(step / 6, 3) for step in range(6)] == [0, 0, 1, 1, 2, 2]
    assert phase_at(1.0, 3) == 2


def simulate(budget: float, expected: tuple[float, ...], factor: float) -> tuple[float, float]:
    """Return (end of a run, progress of its last step) on a machine slower by `factor`."""
    clock, now, progress, last = Clock(budget, expected), 0.0, 0.0, 0.0
    while progress < 1:
        now += factor * expected[phase_at(progress, len(expected))]
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
    assert last > 1 - 3 / (budget / factor / mean)  # the schedule was nearly complete


def test_at_the_expected_speed_all_steps_have_the_same_length() -> None:
    clock, progress = Clock(10.0, (1.0,)), 0.0
    for step in range(9):
        progress = advance(progress, step + 1.0, clock)
        assert progress == pytest.approx((step + 1) / 10)
    assert advance(progress, 10.0, clock) == 1.0


def test_a_restored_clock_has_as_much_time_left() -> None:
    clock = Clock(110.0, (1.0, 2.0), began=90.0, expected=12.0)
    assert restored_clock(clock.state(100.0), 500.0) == Clock(510.0, (1.0, 2.0), 490.0, 12.0)
    unstarted = Clock(110.0, (1.0,))
    assert restored_clock(unstarted.state(100.0), 500.0) == Clock(510.0, (1.0,))


def test_a_run_ends_when_no_time_is_left() -> None:
    assert advance(0.3, 11.0, Clock(10.0, (1.0, 2.0))) == 1.0


def test_time_for_validation_shortens_the_rest() -> None:
    clock, now, progress = Clock(100.0, (1.0,)), 0.0, 0.0
    while progress < 1:
        last, now = progress, now + 1
        progress = advance(progress, now + (20 if progress > 0.5 else 0), clock)
    assert now + 20 == pytest.approx(100, abs=1)
    assert last > 0.95
