"""Ctrl-C and the system's request to end, taken when the program is ready for them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from hundredfold.support.distributed import below_torchrun
from hundredfold.support.errors import UserError
from hundredfold.support.starting import TERMINATED


@dataclass
class Stop:
    """Whether the program was asked to stop."""

    number: int = 0
    """The signal; 0 for none yet."""


def stopped(number: int) -> BaseException:
    """Return what to raise after a signal to stop."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)


@contextmanager
def deferred_stop() -> Iterator[Stop]:
    """Note Ctrl-C and SIGTERM in place of acting on them; a second Ctrl-C acts at once.

    Not below torchrun, which may pass on a Ctrl-C that has come already; after an error there,
    SIGTERM has no effect any more.

    In threads, which signals never reach, nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == stop.number == signal.SIGINT and not below_torchrun():
            raise KeyboardInterrupt
        stop.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except UserError:  # torchrun asks all to end as soon as one has: first they say why
        if below_torchrun():
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
