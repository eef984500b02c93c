"""The device to compute on, and how it likes its pictures laid out."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hundredfold.support.distributed import below_torchrun, local_rank
from hundredfold.support.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def pick_device(name: str) -> torch.device:
    """Return the device of a name; auto is CUDA, else MPS, else the CPU.

    Of several processes on a machine each has a GPU of its own.

    Raises:
        UserError: no device of that name, or not on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and local_rank():
        name = f"cuda:{local_rank()}"
    elif (name.startswith("cuda:") and local_rank()) or (name == "mps" and below_torchrun()):
        raise UserError(f"--device {name}: of several processes each needs its own: cuda, or cpu.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is none of auto, cpu, cuda, cuda:N, mps.") from error
    here = {
        "cpu": True,
        "cuda": cuda and (device.index or 0) < torch.cuda.device_count(),
        "mps": mps,
    }
    if not here.get(device.type, False):
        raise UserError(f"--device {name} is not on this machine: try --device auto.")
    return device


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the order of memory to keep pictures and convolutions in on a device.

    Channels last is 1.2 to 2.2 times as fast on CPUs and suits CUDA's tensor cores; on MPS several
    versions of torch got the gradients of batch norm and max-pooling wrong in it.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def keep_memory() -> None:
    """Have glibc keep freed memory for later tensors, until the process ends.

    Otherwise it returns large blocks to the system, and fetching their pages again takes up to a
    third of a step of training. Where the user has set MALLOC_..., or on other systems: nothing.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
