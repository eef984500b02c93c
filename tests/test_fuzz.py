"""A small campaign of malformed input; `python -m campaigns.fuzz` runs the large one."""

import dataclasses
from pathlib import Path

import pytest
from campaigns.fuzz import campaign
from hypothesis import given
from hypothesis import strategies as st

from hundredfold import Config, Epoch, UserError
from hundredfold.models.info import ModelInfo
from hundredfold.support.jsonio import from_values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KINDS: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind))
    for kind in (Config, ModelInfo, Epoch)
}


@given(st.sampled_from(list(KINDS)), st.data())
def test_any_values_make_a_dataclass_or_are_refused(kind: type, data: st.DataObject) -> None:
    fields = st.dictionaries(st.sampled_from(KINDS[kind]) | st.text(), VALUES, max_size=20)
    values = data.draw(fields | VALUES)
    try:
        assert isinstance(from_values(kind, values, "it"), kind)
    except UserError as error:
        assert str(error).startswith("it")


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it goes on to read
def test_malformed_input_is_read_or_refused_in_words(tmp_path: Path) -> None:
    counts = campaign(10, tmp_path, seed=1)
    assert all(sum(count.values()) == 10 for count in counts.values())
    assert len(counts) == 12
    assert sum(count["refused"] for count in counts.values()) > 20
