"""Handle Ctrl-C and SIGTERM when the program is ready to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from hundredfold.support.distributed import started_by_torchrun
from hundredfold.support.errors import UserError
from hundredfold.support.starting import TERMINATED


@dataclass
class StopRequest:
    """A request to stop the program, if there was one."""

    number: int = 0
    """Number of the signal; 0 if there was none."""


def stop_exception(number: int) -> BaseException:
    """Return the exception to raise after a signal to stop."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Record Ctrl-C and SIGTERM instead of stopping at once. A second Ctrl-C stops at once.

    Under torchrun, a second Ctrl-C is recorded too, as torchrun may pass on the first one again.
    After an error under torchrun, SIGTERM is ignored.

    Outside the main thread this does nothing, as signals never reach them.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == stop.number == signal.SIGINT and not started_by_torchrun():
            raise KeyboardInterrupt
        stop.number = number

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script
        numbers.remove(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    except UserError:  # torchrun ends all processes when one ends, but each must report its error
        if started_by_torchrun():
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
