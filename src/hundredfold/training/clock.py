"""How a run moves through its schedule: by steps, or by the clock where it has a time budget."""

from dataclasses import dataclass


@dataclass
class Clock:
    """When training has to be over, and how long steps should take; learns as it goes."""

    end: float
    """Reading of time.perf_counter at which the last step should end."""
    seconds: tuple[float, ...]
    """A step's expected time at each part of the run: one for each of `Config.sizes`, or one."""
    began: float = 0.0
    """Reading at which the first step began."""
    expected: float = 0.0
    """Time that the steps so far should have taken."""


def part(progress: float, parts: int) -> int:
    """Return which of `parts` equal parts of a run a progress of 0..1 lies in, from 0."""
    return min(int(progress * parts), parts - 1)


def mean_seconds(progress: float, seconds: tuple[float, ...]) -> float:
    """Return a step's mean time over the rest of a run.

    Args:
        progress: share of the schedule that is done, 0..1.
        seconds: a step's time at each of its equal parts.
    """
    parts, now = len(seconds), part(progress, len(seconds))
    shares = [(now + 1) / parts - progress] + [1 / parts] * (parts - now - 1)
    if (left := sum(shares)) <= 0:
        return seconds[-1]
    return sum(share * time for share, time in zip(shares, seconds[now:], strict=True)) / left


def advance(progress: float, now: float, clock: Clock) -> float:
    """Return the progress after one more step, such that the rest fits into the time left.

    A machine that turns out slower or faster than it was measured shortens or stretches what is
    left of the schedule, step by step: the rate still ends where it should, and on time. Pauses
    for validation count as slowness.

    Args:
        progress: where in the schedule the step was taken, 0..1.
        now: reading of time.perf_counter at the step's end.
        clock: the run's; takes note of the step.

    Returns:
        Where to take the next step; 1 where there is no time for half a step more.
    """
    clock.expected += clock.seconds[part(progress, len(clock.seconds))]
    slower = (now - clock.began) / clock.expected
    left = (clock.end - now) / (slower * mean_seconds(progress, clock.seconds))
    return 1.0 if left < 0.5 else progress + (1 - progress) / (left + 1)
