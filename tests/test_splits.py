"""Splits: groups, copies and near duplicates stay on one side."""

import dataclasses
from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from hundredfold import Split
from hundredfold.data.dataset import hold_out
from hundredfold.data.related import connected, join
from hundredfold.data.split import choose_test_pictures, unstable_classes

Pairs = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40)


@given(Pairs)
def test_connected_gives_the_lowest_number_that_a_search_reaches(
    pairs: list[tuple[int, int]],
) -> None:
    found = connected(30, pairs)
    for start in range(30):
        reached, before = {start}, set[int]()
        while reached != before:
            before = set(reached)
            reached |= {b for pair in pairs for a, b in (pair, pair[::-1]) if a in before}
        assert found[start] == min(reached)


@given(Pairs, Pairs, st.integers(1, 3))
def test_near_duplicates_are_joined_except_in_chains(
    certain: list[tuple[int, int]], near: list[tuple[int, int]], classes: int
) -> None:
    labels = [f"class {i % classes}" for i in range(30)]
    lowest, chained = join(labels, certain, near)
    sure = connected(30, certain)
    assert all(lowest[i] == lowest[j] for i, j in certain)
    assert all(lowest[i] == lowest[j] for i, j in near) or chained
    for group in set(lowest):
        members = [i for i in range(30) if lowest[i] == group]
        if len({sure[i] for i in members}) > 1:  # joined by near duplicates
            inside = Counter(labels[i] for i in members)
            assert all(count <= max(10, 15 // classes) for count in inside.values())


Drawn = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 25)), min_size=1, max_size=40
)
"""The class, the group and the digest of each picture."""


def divide(drawn: list[tuple[int, int, int]]) -> tuple[dict[int, str], ...]:
    digests = {i: f"{value * 0x0A3D70A3:08x}" for i, (_, _, value) in enumerate(drawn)}
    labels = {i: f"class {label}" for i, (label, _, _) in enumerate(drawn)}
    pairs = [(i, j) for i in digests for j in range(i) if digests[i] == digests[j]]
    pairs += [(i, j) for i in digests for j in range(i) if drawn[i][1] == drawn[j][1] != 0]
    groups = dict(enumerate(connected(len(drawn), pairs)))
    return digests, labels, groups  # type: ignore[return-value]


@given(Drawn)
def test_no_group_and_no_copy_is_on_both_sides_and_every_class_trains(
    drawn: list[tuple[int, int, int]],
) -> None:
    digests, labels, groups = divide(drawn)
    held = choose_test_pictures(digests, labels, groups)  # type: ignore[arg-type]
    for values in (digests, groups):
        sides = {(values[i], i in held) for i in digests}
        assert len(sides) == len(set(values.values()))
    classes = {name: [i for i in labels if labels[i] == name] for name in set(labels.values())}
    shared = {
        group
        for group in groups.values()
        if len({labels[i] for i in groups if groups[i] == group}) > 1
    }
    for members in classes.values():
        assert not set(members) <= held
        own = {groups[i] for i in members}
        if len(own) > 1 and not own & shared:
            assert set(members) & held


@given(Drawn, Drawn)
def test_added_pictures_move_no_other_group_except_in_named_classes(
    first: list[tuple[int, int, int]], more: list[tuple[int, int, int]]
) -> None:
    both = [*first, *more]
    before, after = divide(first), divide(both)
    held = [choose_test_pictures(*facts) for facts in (before, after)]  # type: ignore[arg-type]
    named = {
        name
        for facts in (before, after)
        for name in unstable_classes(*facts)  # type: ignore
    }
    joined = {after[2][i] for i in range(len(first), len(both))}
    for i in range(len(first)):
        if (i in held[0]) != (i in held[1]):
            assert before[1][i] in named or after[2][i] in joined


def test_a_group_with_more_than_half_of_a_class_trains() -> None:
    digests = {i: f"{0 if i < 6 else 2**31:08x}"[:7] + str(i) for i in range(10)}
    groups = dict.fromkeys(range(6), 0) | {i: i for i in range(6, 10)}
    held = choose_test_pictures(digests, dict.fromkeys(range(10), "a"), groups)
    assert held == {6}


@given(
    drawn=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=60),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 9),
)
def test_a_held_out_split_keeps_groups_together(
    drawn: list[tuple[int, int]], share: float, seed: int
) -> None:
    labels, groups = (torch.tensor(values) for values in zip(*drawn, strict=True))
    store = torch.arange(len(drawn)).view(-1, 1, 1, 1)
    rest, held = hold_out(Split(store, labels, groups=groups), share, seed)
    assert torch.cat([rest.images, held.images]).flatten().sort().values.equal(store.flatten())
    assert rest.groups is not None and held.groups is not None
    assert not set(rest.groups.tolist()) & set(held.groups.tolist())
    for label in set(labels.tolist()):
        count, taken = int((labels == label).sum()), int((held.labels == label).sum())
        assert taken <= max(round(share * count), count // 2) and taken < count


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 9),
)
def test_groups_of_one_picture_change_no_held_out_split(
    counts: list[int], share: float, seed: int
) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    plain = Split(torch.arange(sum(counts)).view(-1, 1, 1, 1), labels)
    grouped = dataclasses.replace(plain, groups=torch.arange(sum(counts)).flip(0))
    one, other = (hold_out(split, share, seed)[1] for split in (plain, grouped))
    assert one.images.equal(other.images)


def test_a_class_in_groups_gets_validation_pictures() -> None:
    labels, groups = torch.zeros(20, dtype=torch.int64), torch.arange(20) // 5
    split = Split(torch.arange(20).view(-1, 1, 1, 1), labels, groups=groups)
    assert len(hold_out(split, 0.05, 0)[1]) == 5
    assert len(hold_out(split, 0.0, 0)[1]) == 0
