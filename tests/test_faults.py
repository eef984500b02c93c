"""A small campaign of faults; `python tests/faults.py` runs the large one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_nothing_is_lost() -> None:
    """In a process of its own: the campaign forks, which one that has computed should not."""
    script = str(Path(__file__).parent / "faults.py")
    done = subprocess.run(
        [sys.executable, script, "--kills", "6", "--disks", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills, disks, verdict = done.stdout.split("\n\n")
    assert json.loads(kills)["kills"] >= 6
    assert "full disk" in disks
    assert verdict.startswith("0 lost runs, 0 differences")
