"""Prepare signals and standard streams before the slow imports of the command line.

During the imports and after the command, Ctrl-C ends the program at once: nothing needs cleaning
up, and an exception inside a module that loads could turn into any other. This applies only to
`hundredfold` and `python -m hundredfold`; importing the library changes nothing.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and after SIGTERM: 130 and 143."""
NAME = os.path.splitext(os.path.basename((sys.argv or [""])[0]))[0]  # noqa: PTH119, PTH122
IS_COMMAND = NAME in ("hundredfold", "-m")
"""Whether this process is the command line. Python sets the name `-m` while it finds a package."""


def end_at_once(code: int = INTERRUPTED) -> None:
    """Make Ctrl-C end this program at once with an exit code, unless SIGINT is ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        if code == INTERRUPTED:
            os.write(2, b"Interrupted.\n")
        os._exit(code)

    if IS_COMMAND and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def loaded() -> None:
    """Make Ctrl-C and SIGTERM raise exceptions from now on, so that the command can clean up."""
    if not IS_COMMAND:
        return
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun does not wait for cleaning up
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _open_streams() -> None:
    """Open the standard streams that are closed; otherwise the next file takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


if IS_COMMAND:
    _open_streams()
    end_at_once()
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last step
