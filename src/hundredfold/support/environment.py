"""Describe the environment of a run, which decides whether another run gives the same bits."""

import os
import platform
import secrets
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hundredfold.support import native
from hundredfold.support.distributed import SINGLE_PROCESS, Processes


def describe_environment(
    device: torch.device, data_digest: str, processes: Processes = SINGLE_PROCESS
) -> dict[str, Any]:
    """Return versions, machine, threads, commit and the data's digest as JSON values."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    commit = _git("rev-parse", "HEAD") if tracked else None
    return {
        "id": secrets.token_hex(8),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hundredfold": version("hundredfold"),
        "commit": commit,
        "uncommitted_changes": bool(_git("status", "--porcelain")) if commit else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "convolutions": "compiled" if native.available() else "torch",
        "device": device_name(device),
        "data_sha256": data_digest,
        **({"processes": processes.size, "launch": processes.launch} if processes.size > 1 else {}),
    }


def device_name(device: torch.device) -> str:
    """Return the model name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else str(device)


def processor() -> str:
    """Return the processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Return git's output in the folder of this package; None if git fails there."""
    try:
        result = subprocess.run(
            ["git", *arguments],  # noqa: S607  # found on the user's PATH
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
