"""A tracker that never holds up training, whatever happens to it."""

import queue
import shlex
import threading
import time
from collections.abc import Callable
from typing import Any

from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.support.errors import first_line
from hundredfold.track.base import Tracker

PATIENCE = 20.0
"""Seconds that the end of a run waits for a tracker from which nothing comes."""


class Background:
    """Passes what a tracker is told on in a thread of its own; one warning where it fails.

    Args:
        name: what the user calls it.
        tracker: the one that is told.
        tell: takes the warning.
    """

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name, self.tracker, self.tell = name, tracker, tell
        self.waiting: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self.failure = ""
        self.heard = time.monotonic()
        self.run: Run | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def start(self, run: Run) -> None:
        """Pass on that a run begins."""
        self.run = run
        self.waiting.put((self.tracker.start, (run,)))

    def epoch(self, epoch: Epoch) -> None:
        """Pass on an epoch."""
        self.waiting.put((self.tracker.epoch, (epoch,)))

    def finish(self, run: Run) -> None:
        """Pass on that the run is finished."""
        self.waiting.put((self.tracker.finish, (run,)))

    def close(self) -> None:
        """Wait until all is passed on, but not for a tracker that does not answer."""
        self.waiting.put(None)
        self.heard = time.monotonic()
        while self.thread.is_alive() and time.monotonic() - self.heard < PATIENCE:
            self.thread.join(0.05)
        if self.thread.is_alive():
            self.failure = f"it has not answered for {PATIENCE:.0f} s"
        if self.failure:
            run = shlex.quote(str(self.run))
            self.tell(
                f"{self.name} did not get all of the run: {self.failure}. The run's own files are "
                f"complete; to send them later: hundredfold track {run} --to {self.name}"
            )

    def _work(self) -> None:
        """Do what waits, one after the other, until the end or a failure."""
        while (task := self.waiting.get()) is not None:
            work, arguments = task
            try:
                work(*arguments)
            except Exception as error:  # whatever a library comes up with
                self.failure = f"{type(error).__name__}: {first_line(error)[:200]}"
                return
            self.heard = time.monotonic()
