"""Choose the device to compute on, and set its memory layout and memory use."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from hundredfold.support.distributed import local_rank, started_by_torchrun
from hundredfold.support.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Option numbers in glibc's malloc.h."""


def pick_device(name: str) -> torch.device:
    """Return the device of a name. auto is CUDA if available, else MPS if available, else the CPU.

    Each of several processes on a machine gets a GPU of its own.

    Raises:
        UserError: there is no device of that name, or this machine does not have it.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and local_rank():
        name = f"cuda:{local_rank()}"
    elif (name.startswith("cuda:") and local_rank()) or (name == "mps" and started_by_torchrun()):
        raise UserError(
            f"--device {name} is one device, but each process needs its own. Use cuda or cpu."
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"--device {name} must be one of auto, cpu, cuda, cuda:N and mps."
        ) from error
    number = name.partition(":")[2]
    if number and number != str(device.index):  # torch keeps 8 bits of it
        raise UserError(f"--device {name} is not available on this machine. Try --device auto.")
    available = {
        "cpu": True,
        "cuda": cuda and (device.index or 0) < torch.cuda.device_count(),
        "mps": mps,
    }
    if not available.get(device.type, False):
        raise UserError(f"--device {name} is not available on this machine. Try --device auto.")
    return device


def has_matrix_units() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in units of their own (Intel's AMX).

    Versions of torch that cannot tell count as without.
    """
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format for pictures and convolutions on a device.

    Channels last is 1.2 to 2.2 times as fast on CPUs and suits CUDA's tensor cores. On MPS, several
    versions of torch compute wrong gradients of batch norm and max-pooling in this format.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device, in the device's `memory_format`, and return it."""
    return model.to(device).to(memory_format=memory_format(device))


def keep_memory() -> None:
    """Make glibc keep freed memory for later tensors until the process ends.

    Otherwise it returns large blocks to the system, and getting their pages back takes up to a
    third of a training step. This does nothing if the user has set a variable MALLOC_..., or on
    other systems than Linux.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def fork_rng(device: torch.device) -> Iterator[None]:
    """Restore the state of torch's global random generators when the block ends."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
