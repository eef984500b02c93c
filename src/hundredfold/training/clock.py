"""Progress of a run with a time budget: by the clock instead of by the number of steps."""

from dataclasses import dataclass

from hundredfold.runs.checkpoints import ClockState


@dataclass
class Clock:
    """When training should end, and how long its steps should take; `advance` updates it."""

    end: float
    """Reading of time.perf_counter at which the last step should end."""
    seconds: tuple[float, ...]
    """Expected time of a step in seconds, for each phase of the run: one for each of
    `Config.sizes`, or a single one."""
    began: float = 0.0
    """Reading of time.perf_counter at which the first step began; 0 before it."""
    expected: float = 0.0
    """Time in seconds that the steps so far should have taken."""

    def state(self, now: float) -> ClockState:
        """Return the clock's state for a checkpoint at the reading `now`."""
        began = self.began and self.began - now
        return ClockState(self.end - now, self.seconds, began, self.expected)


def restored_clock(state: ClockState, now: float) -> Clock:
    """Return the clock of a run that is resumed at the reading `now`."""
    began = state.began and now + state.began
    return Clock(now + state.end, state.seconds, began, state.expected)


def phase_at(progress: float, phases: int) -> int:
    """Return the number, from 0, of the phase of a run at a progress of 0..1.

    Phases have equal lengths.
    """
    return min(int(progress * phases), phases - 1)


def mean_seconds(progress: float, seconds: tuple[float, ...]) -> float:
    """Return the mean time of a step over the rest of a run.

    Args:
        progress: share of the schedule that is done, 0..1.
        seconds: time of a step in each phase.
    """
    phases, phase = len(seconds), phase_at(progress, len(seconds))
    shares = [(phase + 1) / phases - progress] + [1 / phases] * (phases - phase - 1)
    if (left := sum(shares)) <= 0:
        return seconds[-1]
    return sum(share * time for share, time in zip(shares, seconds[phase:], strict=True)) / left


def advance(progress: float, now: float, clock: Clock) -> float:
    """Return the progress after one more step, chosen so that the rest fits into the time left.

    If the machine turns out slower or faster than measured, each step shortens or stretches the
    rest of the schedule. The learning rate still falls to its end, and training ends on time. Time
    spent on validation counts as slowness.

    Args:
        progress: progress at which the step was taken, 0..1.
        now: reading of time.perf_counter at the end of the step.
        clock: the clock of the run; updated by the step.

    Returns:
        The progress at which to take the next step; 1 if less than half a step fits.
    """
    clock.expected += clock.seconds[phase_at(progress, len(clock.seconds))]
    slower = (now - clock.began) / clock.expected
    left = (clock.end - now) / (slower * mean_seconds(progress, clock.seconds))
    return 1.0 if left < 0.5 else progress + (1 - progress) / (left + 1)
