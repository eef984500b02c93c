"""Run a tracker in a thread of its own, so that it never delays or breaks training."""

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

TRACKER_TIMEOUT = 20.0
"""Seconds without progress after which the end of a run stops waiting for a tracker."""


class Background:
    """Calls a tracker in a thread of its own, and warns once if the tracker fails.

    Args:
        name: name of the tracker on the command line.
        tracker: the tracker to call.
        tell: called with the warning.
    """

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name, self.tracker, self.tell = name, tracker, tell
        self.queue: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self.failure = ""
        self.last_progress = time.monotonic()
        self.run: Run | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def start(self, run: Run) -> None:
        """Queue the start of a run."""
        self.run = run
        self.queue.put((self.tracker.start, (run,)))

    def epoch(self, epoch: Epoch) -> None:
        """Queue an epoch."""
        self.queue.put((self.tracker.epoch, (epoch,)))

    def finish(self, run: Run) -> None:
        """Queue the end of a run."""
        self.queue.put((self.tracker.finish, (run,)))

    def close(self) -> None:
        """Wait until the queue is done, or until the tracker stops responding."""
        self.queue.put(None)
        self.last_progress = time.monotonic()
        while self.thread.is_alive() and time.monotonic() - self.last_progress < TRACKER_TIMEOUT:
            self.thread.join(0.05)
        if self.thread.is_alive():
            self.failure = f"it has not responded for {TRACKER_TIMEOUT:.0f} s"
        if self.failure:
            run = shlex.quote(str(self.run))
            self.tell(
                f"{self.name} did not receive the whole run: {self.failure}. The run directory is "
                f"complete. To send it later: hundredfold track {run} --to {self.name}"
            )

    def _work(self) -> None:
        """Make the queued calls in order, until the end or the first failure."""
        while (task := self.queue.get()) is not None:
            work, arguments = task
            try:
                work(*arguments)
            except Exception as error:  # libraries raise errors of any type
                self.failure = f"{type(error).__name__}: {first_line(error)[:200]}"
                return
            self.last_progress = time.monotonic()
