"""The library of compiled code, if this installation has one (winograd.cpp).

It is compiled while the package is built: on Linux, for x86, if there is a C++ compiler
(hatch_build.py).
"""

import ctypes
from functools import cache
from pathlib import Path

import torch  # noqa: F401  # loads the OpenMP library, so that ours shares its threads

LIBRARY = Path(__file__).parents[1] / "native" / "libwinograd.so"


class Shape(ctypes.Structure):
    """The numbers that the library needs, as in winograd.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("batch", "height", "width", "channels", "filters", "m", "group", "threads")
    )


@cache
def library() -> ctypes.CDLL:
    """Load the library.

    Raises:
        OSError, AttributeError: it is missing, for another kind of machine, or of another version.
    """
    code = ctypes.CDLL(str(LIBRARY))
    pointer, shape = ctypes.c_void_p, ctypes.POINTER(Shape)
    code.winograd_scratch.argtypes, code.winograd_scratch.restype = [shape], ctypes.c_long
    code.winograd_convolve.argtypes = [pointer] * 5 + [shape]
    code.winograd_differentiate.argtypes = [pointer] * 7 + [shape]
    return code


@cache
def available() -> bool:
    """Return whether the library is there and fits this processor."""
    try:
        return bool(library().winograd_fits())
    except (OSError, AttributeError):
        return False
