"""Splits: groups, copies and near duplicates stay on one side."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.making import Load
from support.pets import pictures, scene

from hundredfold import Config, Split, train
from hundredfold.audit.audit import audit, cleaned_list
from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.data import related
from hundredfold.data.dataset import hold_out
from hundredfold.data.near import near_duplicates
from hundredfold.data.related import connected, join
from hundredfold.data.split import choose_test_pictures, unstable_classes
from hundredfold.experiments.explore import training_split
from hundredfold.training.fitting import balanced
from hundredfold.training.setup import make_setup, split_dataset


def as_tensor(images: list[Image.Image], side: int = 64) -> torch.Tensor:
    def pixels(image: Image.Image) -> torch.Tensor:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)

    return torch.stack([pixels(image).view(side, side, 3).permute(2, 0, 1) for image in images])


def variants(image: Image.Image, folder: Path) -> list[Image.Image]:
    """Return a picture saved again, smaller, brighter, mirrored, and slightly cropped."""
    image.save(folder / "again.jpg", quality=40)
    side = image.width
    return [
        Image.open(folder / "again.jpg"),
        image.resize((side // 2, side // 2)),
        image.point(lambda value: value * 0.8 + 20),
        ImageOps.mirror(image),
        image.crop((2, 1, side - 1, side - 2)),
    ]


@pytest.mark.parametrize("side", [32, 64, 100])
def test_variants_of_a_picture_are_near_duplicates_and_other_pictures_are_not(
    side: int, tmp_path: Path
) -> None:
    images = [scene(seed) for seed in range(40)]
    for seed in range(3):
        images += variants(scene(seed), tmp_path)
    found = near_duplicates(as_tensor(images, side), torch.arange(len(images)))
    lowest = connected(len(images), found)
    original = [*range(40), *(seed for seed in range(3) for _ in range(5))]
    assert lowest == original


def test_pictures_without_structure_are_no_near_duplicates() -> None:
    plain = torch.full((4, 3, 48, 48), 200, dtype=torch.uint8)
    assert near_duplicates(plain, torch.arange(4)) == []
    assert near_duplicates(plain, torch.arange(0)) == []
    assert near_duplicates(plain, torch.arange(1)) == []


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


def photo_folder(root: Path) -> Path:
    """Write 12 photos for each of two classes: of four, a second version is saved again."""
    for label, first in (("cat", 0), ("dog", 100)):
        for i in range(12):
            path = root / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(first + i).save(path)
            if i < 4:
                scene(first + i).save(root / label / f"again {i}.jpg", quality=60)
    return root


def test_near_duplicates_in_a_folder_stay_on_one_side(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    dataset = load(photo_folder(tmp_path / "pets"))
    assert "Copies, near duplicates and pictures of one group stay together" in said[0]
    for seed in range(5):
        config = Config(validation=0.2, seed=seed)
        rest, validation = split_dataset(dataset, config)
        assert len(validation) and len(dataset.test)
        sides = [
            {n.replace("again ", "").rpartition(".")[0] for n in part.names}
            for part in (rest, validation, dataset.test)
        ]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 24
        setup = make_setup(config, dataset, torch.device("cpu"))
        assert training_split(setup, dataset).labels.equal(rest.labels)


def test_copies_in_two_classes_are_not_divided(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"cat": 9, "dog": 9})
    for i in range(9):
        (root / f"dog/copy-{i}.png").write_bytes((root / f"cat/cat-{i}.png").read_bytes())
    dataset = load(root)
    test = {bytes(image.numpy().data) for image in dataset.test.images}
    assert not test & {bytes(image.numpy().data) for image in dataset.train.images}


def test_groups_of_a_table_stay_on_one_side(tmp_path: Path, load: Load, said: list[str]) -> None:
    pictures(tmp_path, {"cat": 30, "dog": 30})
    lines = [
        f"{name}/{name}-{i}.png,{name},{name if i % 2 else 'both'} {i % 5}"
        for name in ("cat", "dog")
        for i in range(30)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,Patient", *lines]))
    dataset = load(table)
    group = {line.split(",")[0]: line.split(",")[2] for line in lines}
    rest, validation = split_dataset(dataset, Config(validation=0.1))
    sides = [{group[name] for name in part.names} for part in (rest, validation, dataset.test)]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides)) == 15
    assert (
        dataset.digest()
        != dataclasses.replace(
            dataset, train=dataclasses.replace(dataset.train, groups=None)
        ).digest()
    )


def test_groups_in_several_given_splits_are_named(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    pictures(tmp_path, {"cat": 4, "dog": 4})
    splits = ("train", "train", "validation", "test")
    people = {"cat": ("ann", "bob", "bob", "eve"), "dog": ("", "joe", "", "")}
    lines = [
        f"{name}/{name}-{i}.png,{name},{splits[i]},{people[name][i]}"
        for name in people
        for i in range(4)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,split,person", *lines]))
    dataset = load(table)
    assert len(dataset.train) == 4
    assert "1 group has pictures in several splits" in said[0] and "bob" in said[0]
    result = audit(load_audited_pictures(str(table)), near=False, labels=False)
    (finding,) = [finding for finding in result.findings if finding.key == "group_splits"]
    assert [item.line for item in finding.items] == ["bob: 1 in train, 1 in validation"]
    clean = tmp_path / "clean.csv"
    clean.write_text(cleaned_list(result))
    assert clean.read_text().splitlines()[0] == "path,label,superclass,split,group"
    before = len(said)
    assert load(clean).train.names
    assert any("bob" in line for line in said[before:])


def test_a_chain_through_most_of_a_class_is_divided_and_said(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"dog": 30})
    for i in range(30):
        path = root / "cat" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        scene(1).save(path, quality=60 + i)
    dataset = load(root)
    assert any("form chains through more than half of the pictures of cat" in line for line in said)
    assert set(dataset.test.labels.tolist()) == {0, 1}


def test_many_pictures_are_only_searched_for_copies(
    tmp_path: Path, load: Load, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(related, "MAX_PICTURES", 20)
    dataset = load(photo_folder(tmp_path / "pets"))
    assert dataset.train.groups is None
    assert any(
        "more than 20 pictures, so near duplicates are not searched" in line for line in said
    )


@pytest.mark.parametrize(
    "counts, want",
    [
        ({"a": 3, "b": 30}, {"train": [1, 2], "validation": [1], "test": [1]}),
        ({"a": 2, "b": 30}, {"train": [1], "validation": [0], "test": [1]}),
        ({"a": 1, "b": 30}, {"train": [1], "validation": [0], "test": [0]}),
        ({f"{split}/{name}": count for split in ("train", "val", "test")
          for name, count in (("a", 1), ("b", 9))},
         {"train": [1], "validation": [1], "test": [1]}),
        ({f"{split}/{name}": count for split, few in (("train", 2), ("test", 1))
          for name, count in (("a", few), ("b", 9))},
         {"train": [1], "validation": [1], "test": [1]}),
    ],
)  # fmt: skip
def test_classes_of_one_to_three_pictures_train(
    counts: dict[str, int], want: dict[str, list[int]], tmp_path: Path, load: Load,
    said: list[str], tiny_config: Config,
) -> None:  # fmt: skip
    dataset = load(pictures(tmp_path / "few", counts))
    config = dataclasses.replace(tiny_config, validation=0.34, epochs=1)
    training, validation = split_dataset(dataset, config)
    parts = {"train": training, "validation": validation, "test": dataset.test}
    found = {name: int((part.labels == 0).sum()) for name, part in parts.items()}
    assert all(found[name] in want[name] for name in want), found
    assert any("no test picture" in line for line in said) == (not found["test"])
    run = train(config, dataset, quiet=True)
    assert run.finished and 0 <= run.metrics()["test"]["macro_recall"] <= 1


@pytest.mark.parametrize(("most", "want"), [(9, "none"), (19, "none"), (20, "loss"), (60, "loss")])
def test_classes_of_very_unequal_size_are_balanced(most: int, want: str) -> None:
    labels = torch.tensor([0] * most + [2] * 2)  # class 1 has no pictures and does not count
    assert balanced(Config(), labels).balance == want
    for chosen in ("none", "loss", "sampling"):
        assert balanced(Config(balance=chosen), labels).balance == chosen


def test_the_balance_is_recorded_and_said(
    tmp_path: Path, load: Load, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(pictures(tmp_path / "pets", {"train/a": 30, "train/b": 3, "test/a": 2}))
    run = train(dataclasses.replace(tiny_config, epochs=1, validation=0.0), dataset)
    assert run.config().balance == "loss"
    said = " ".join(capsys.readouterr().out.split())
    assert "classes of 3 to 30 pictures: each class has the same weight in the loss" in said
