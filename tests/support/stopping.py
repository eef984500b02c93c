"""Make runs whose training was interrupted."""

import signal
from pathlib import Path

import pytest

from hundredfold import Config, Dataset, Run, train
from hundredfold.training.loop import StepRecord
from hundredfold.training.progress import Display


class Stopper(Display):
    """A display that sends this process a signal after a number of steps."""

    def __init__(self, steps: int, number: int = signal.SIGINT) -> None:
        super().__init__(quiet=True)
        self.left, self.number = steps, number

    def step(self, step: StepRecord, epochs_done: int, progress: float) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def interrupted(config: Config, data: Dataset, steps: int) -> Run:
    """Return a run that was stopped after a number of steps."""
    before = set(Path(config.out).glob("*"))
    with pytest.raises(KeyboardInterrupt):
        train(config, data, display=Stopper(steps))
    (path,) = set(Path(config.out).glob("*")) - before
    return Run(path)
