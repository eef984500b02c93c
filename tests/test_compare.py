"""Comparison of runs: groups, and statistical tests against scipy."""

import dataclasses
import json
import math
import re
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind
from support.making import Train, unfinish, update_digests

from hundredfold import Dataset, Run, UserError
from hundredfold.evaluation.compare import compare, correct_predictions, spread


def rewrite(run: Run, file: str, **changes: Any) -> None:
    """Change values of a run's JSON file."""
    values = json.loads((run.path / file).read_text())
    (run.path / file).write_text(json.dumps(values | changes))
    update_digests(run)


def right(run: Run, level: str) -> list[bool]:
    """Return which test pictures a run predicts correctly, with loops over its recorded logits."""
    with np.load(run.path / "test_logits.npz") as arrays:
        logits, labels = arrays["logits"].astype(float), arrays["labels"].tolist()
    info = json.loads((run.path / "model.json").read_text())
    found = []
    for row, label in zip(logits, labels, strict=True):
        if level == "fine":
            found.append(max(range(len(row)), key=row.__getitem__) == label)
            continue
        sums = [0.0] * len(info["superclasses"])
        for logit, parent in zip(row, info["parents"], strict=True):
            sums[parent] += math.exp(logit / info["temperature"])
        found.append(sums.index(max(sums)) == info["parents"][label])
    return found


def split(first: list[bool], second: list[bool]) -> tuple[int, int, float]:
    """Return the numbers of pictures that only one run predicts correctly, and the p-value."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    return only_first, only_second, binomtest(only_first, n).pvalue if n else 1.0


def test_runs_that_differ_in_the_seed_form_one_group(trained: Train, tmp_path: Path) -> None:
    runs = [trained(seed=seed, out=str(tmp_path / f"runs-{seed}")) for seed in (2, 0, 1)]
    found = compare([str(runs[0]), runs[1].path, runs[2], runs[1]])
    (group,) = found.groups
    assert group.name == "tiny"
    assert group.runs == (runs[1], runs[2], runs[0])
    assert not found.contrasts
    assert not found.notes
    assert found.differences == {}
    values = [json.loads((run.path / "metrics.json").read_text()) for run in group.runs]
    for name, (view, key) in {
        "fine_top1": ("test", "fine_top1"),
        "coarse_top1": ("test", "coarse_top1"),
        "flip_fine_top1": ("test_flip", "fine_top1"),
        "flip_coarse_top1": ("test_flip", "coarse_top1"),
        "ece": ("test", "ece"),
    }.items():
        each = [value[view][key] for value in values]
        assert spread(group.scores[name]) == (3, statistics.mean(each), statistics.stdev(each))
    assert group.scores["seconds"] == [value["seconds"] for value in values]
    assert spread([0.5]) == (1, 0.5, None)


def test_pairs_of_groups_have_the_p_values_of_scipy(trained: Train) -> None:
    runs = [
        trained(name="short", epochs=0.5),
        trained(name="long", epochs=3.0, lr=0.2),
        trained(name="概念", pad=0),
    ]
    found = compare(runs)
    assert [group.name for group in found.groups] == ["short", "long", "概念"]
    assert found.differences == {
        "name": ["short", "long", "概念"],
        "epochs": ["0.5", "3.0", "1.0"],
        "lr": ["0.05", "0.2", "0.05"],
        "pad": ["2", "2", "0"],
    }
    pairs = [(*pair, level) for pair in combinations(runs, 2) for level in ("fine", "coarse")]
    for contrast, (first, second, level) in zip(found.contrasts, pairs, strict=True):
        assert contrast.level == level
        assert contrast.first.runs == (first,)
        assert contrast.second.runs == (second,)
        assert contrast.mcnemar == pytest.approx(split(right(first, level), right(second, level)))
        assert contrast.difference is None
    assert min(contrast.mcnemar.p for contrast in found.contrasts) < 0.1
    for run in runs:
        assert right(run, "fine") == correct_predictions(run)["fine"].tolist()
        assert sum(right(run, "coarse")) / 24 == run.metrics()["test"]["coarse_top1"]


def test_difference_of_means_has_the_standard_error_of_welch(trained: Train) -> None:
    short = [trained(seed=seed, epochs=2.0, lr=0.2) for seed in range(3)]
    long = [trained(seed=seed, epochs=3.0, lr=0.1) for seed in (4, 2)]
    found = compare([*short, *long])
    assert [len(group.runs) for group in found.groups] == [3, 2]
    assert found.groups[0].name == "tiny with epochs 2.0, lr 0.2"
    for contrast in found.contrasts:
        key = f"{contrast.level}_top1"
        first, second = ([run.metrics()["test"][key] for run in runs] for runs in (short, long))
        assert contrast.difference
        mean, error = contrast.difference
        assert mean == pytest.approx(statistics.mean(first) - statistics.mean(second))
        welch = ttest_ind(first, second, equal_var=False).statistic
        assert mean / error == pytest.approx(welch)
        firsts = right(short[0], contrast.level), right(long[1], contrast.level)
        assert contrast.mcnemar == pytest.approx(split(*firsts))


def test_run_on_coarse_labels_is_compared_with_coarse_predictions_of_others(trained: Train) -> None:
    fine, coarse = trained(name="fine"), trained(name="coarse", labels="coarse")
    found = compare([coarse, fine])
    (contrast,) = found.contrasts
    assert contrast.level == "coarse"
    want = split(right(coarse, "fine"), right(fine, "coarse"))  # its labels are the coarse ones
    assert contrast.mcnemar == pytest.approx(want)
    assert any(note.startswith("coarse: trained on coarse labels") for note in found.notes)
    assert "fine_top1" not in found.groups[0].scores


def test_groups_with_other_data_are_not_compared(trained: Train, tiny: Dataset) -> None:
    other = dataclasses.replace(tiny, classes=tuple("uvwxyz"), source="other")
    found = compare([trained(), trained(other), trained(pad=0)])
    assert [(c.first.name, c.second.name) for c in found.contrasts] == [
        ("tiny with data tiny, pad 2", "tiny with data tiny, pad 0"),
    ] * 2
    (note,) = found.notes
    assert note.startswith(
        "Only groups with the same data are compared (tiny with data tiny, pad 2: tiny, "
    )
    assert other.digest()[:8] in note


def test_same_data_in_another_place_is_the_same_group(trained: Train) -> None:
    runs = [trained(seed=seed) for seed in range(2)]
    rewrite(runs[1], "config.json", data="/elsewhere/tiny")
    assert len(compare(runs).groups) == 1


def test_the_key_of_an_address_is_not_shown(trained: Train, tiny: Dataset) -> None:
    elsewhere = dataclasses.replace(tiny, source="https://host/pets.zip?key=SECRET")
    found = compare([trained(), trained(elsewhere, lr=0.1)])
    assert found.differences["data"] == ["tiny", "https://host/pets.zip"]


def test_runs_with_a_time_budget_are_grouped_whatever_their_planned_epochs(trained: Train) -> None:
    runs = [trained(seed=seed) for seed in range(3)]
    for run, epochs in zip(runs, (3.4, 3.1), strict=False):
        rewrite(run, "config.json", budget="5min", epochs=epochs)
    found = compare(runs)
    assert [len(group.runs) for group in found.groups] == [2, 1]
    assert found.differences == {"epochs": ["by time budget", "1.0"], "budget": ["5min", "empty"]}


def test_repeated_seed_starts_another_group(trained: Train) -> None:
    found = compare([trained(), trained(seed=1), trained()])
    assert [(group.name, len(group.runs)) for group in found.groups] == [
        ("tiny", 2),
        ("tiny (2)", 1),
    ]
    assert {contrast.mcnemar for contrast in found.contrasts} == {(0, 0, 1.0)}
    assert found.differences == {}


def test_times_of_different_machines_are_not_comparable(trained: Train) -> None:
    runs = [trained(name="a"), trained(name="b"), trained(name="b", seed=1)]
    threads = runs[0].environment()["threads"]
    rewrite(runs[1], "environment.json", threads=64)
    rewrite(runs[2], "environment.json", processor="Abacus", device="Abacus")
    notes = compare(runs).notes
    assert len(notes) == 2
    assert re.fullmatch(r"Times are not comparable: `device` differs \(a: .*; b: .*\)\.", notes[0])
    assert "Abacus" in notes[0]
    assert notes[1] == (
        f"Times are not comparable: `threads` differs (a: {threads}; b: {threads} or 64)."
    )


def test_unfinished_runs_are_left_out(trained: Train) -> None:
    runs = [trained(seed=seed) for seed in range(3)]
    unfinish(runs[1])
    found = compare(runs)
    assert found.groups[0].runs == (runs[0], runs[2])
    assert found.notes == (f"{runs[1]} is unfinished and was left out.",)
    with pytest.raises(UserError, match=f"two or more finished runs.*unfinished: {runs[1]}"):
        compare(runs[:2])
    with pytest.raises(UserError, match="two or more finished runs to compare\\."):
        compare([runs[0], runs[0]])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "{", "config.json is not valid JSON"),
        ("environment.json", "{}", "does not say which data it was trained on"),
        ("metrics.json", "{}", "final metrics of .* are damaged: KeyError"),
        ("test_logits.npz", "no archive", "test_logits.npz is damaged"),
        ("history.jsonl", "", "has no history"),
    ],
)
def test_error_names_the_damaged_run(file: str, content: str, said: str, trained: Train) -> None:
    runs = [trained(name="a"), trained(name="b")]
    (runs[1].path / file).write_text(content)
    update_digests(runs[1])
    with pytest.raises(UserError, match=said) as caught:
        _ = compare(runs).histories()
    assert str(runs[1]) in str(caught.value)


def test_predictions_of_another_run_count_as_damage(trained: Train) -> None:
    runs = [trained(name="a"), trained(name="b"), trained(name="c", labels="coarse")]
    (runs[1].path / "test_logits.npz").write_bytes((runs[2].path / "test_logits.npz").read_bytes())
    update_digests(runs[1])
    with pytest.raises(UserError, match=r"its test predictions do not match its other files"):
        compare(runs)
