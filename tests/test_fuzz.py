"""A small campaign of malformed input; `python tests/fuzz.py` runs the large one."""

from pathlib import Path

import pytest
from fuzz import campaign


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it goes on to read
def test_malformed_input_is_read_or_refused_in_words(tmp_path: Path) -> None:
    counts = campaign(10, tmp_path, seed=1)
    assert all(sum(count.values()) == 10 for count in counts.values())
    assert len(counts) == 12
    assert sum(count["refused"] for count in counts.values()) > 20
