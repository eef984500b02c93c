"""Small campaigns of faults and of damage; `make faults` runs the large ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns.damage import campaign, cut, flip, remove

from hundredfold.runs.folder import VERIFIED_FILES


@pytest.mark.long
def test_nothing_is_lost() -> None:
    """In a process of its own: the campaign forks, which one that has computed should not."""
    done = subprocess.run(
        [sys.executable, "-m", "campaigns.faults", "--kills", "6", "--disks", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    kills, disks, verdict = done.stdout.split("\n\n")
    assert json.loads(kills)["kills"] >= 6
    assert "full disk" in disks
    assert verdict.startswith("0 lost runs, 0 differences")


def test_no_damage_goes_unnoticed() -> None:
    kinds = [("flipped", flip), ("removed", remove), ("emptied", cut(0))]
    counts = campaign(kinds, ("Predictor.load", "runs"))
    assert all(counts[f"{name}, {kind}"] == 2 for name in VERIFIED_FILES for kind, _ in kinds)
    assert counts["refused"] == 3 * 3  # of the model, the weights and the metrics
    assert counts["named as damaged"] == 3 * 5  # of all but the weights and the predictions
