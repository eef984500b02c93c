"""What the command line needs before the rest is loaded, which takes seconds: signals, streams.

While it loads, and once it is done, there is nothing to tidy, and an exception amid a module may
become any other: Ctrl-C ends the program at once. Only `hundredfold` and `python -m hundredfold` do
so; to whoever imports the library nothing happens.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes of a program that Ctrl-C or SIGTERM ended: 130 and 143."""
NAME = os.path.splitext(os.path.basename((sys.argv or [""])[0]))[0]  # noqa: PTH119, PTH122
IS_COMMAND = NAME in ("hundredfold", "-m")
"""Whether this process is the command line: `-m` stands there while the package is looked for."""


def end_at_once(code: int = INTERRUPTED) -> None:
    """Let Ctrl-C end this program at once, with an exit code, where nothing ignores it."""

    def end(number: int, frame: FrameType | None) -> None:
        if code == INTERRUPTED:
            os.write(2, b"Interrupted.\n")
        os._exit(code)

    if IS_COMMAND and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def loaded() -> None:
    """Let Ctrl-C and SIGTERM raise exceptions from now on, so that what was begun is tidied up."""
    if not IS_COMMAND:
        return
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun does not wait for who waits for others
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _open_streams() -> None:
    """Open standard streams that are closed: the next file would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


if IS_COMMAND:
    _open_streams()
    end_at_once()
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last of all: it is over
