"""Intervals of accuracies: right values, and where people see them."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from support.making import Train, make_split, update_digests

from hundredfold import Config, Dataset, Run, UserError, evaluate, train, write_report
from hundredfold.cli.main import main
from hundredfold.evaluation.evaluate import compare_with_record
from hundredfold.evaluation.predictions import scored_predictions
from hundredfold.export.hub import card
from hundredfold.metrics.intervals import accuracy_intervals, wilson_interval
from hundredfold.metrics.scores import describe_test, format_interval, metric_rows
from hundredfold.track.base import final_metrics
from hundredfold.training.progress import JsonDisplay, metrics_table

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def bisect(share: float, count: int, low: float, high: float) -> float:
    """Return the p at which |p - share| = Z sqrt(p (1 - p) / count).

    Between `low` and `high`, the side that contains the share first satisfies `<=`.
    """
    for _ in range(200):
        p = (low + high) / 2
        if abs(p - share) <= Z * (p * (1 - p) / count) ** 0.5:
            low = p
        else:
            high = p
    return low


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_solve_wilsons_equation(counts: tuple[int, int]) -> None:
    hits, count = counts
    share = hits / count
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share <= high <= 1
    assert low == pytest.approx(bisect(share, count, share, 0.0), abs=1e-9)
    assert high == pytest.approx(bisect(share, count, share, 1.0), abs=1e-9)


@given(
    st.integers(1, 10**5).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.01, 0.999),
)
def test_limits_equal_scipy(counts: tuple[int, int], confidence: float) -> None:
    hits, count = counts
    want = binomtest(hits, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(hits / count, count, confidence) == pytest.approx(tuple(want), abs=1e-9)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (7, 8), (375, 500), (7218, 10_000)])
def test_limits_equal_statsmodels(hits: int, count: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    want = proportion.proportion_confint(hits, count, method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx(want)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # Newcombe, 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_limits_equal_published_values(hits: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(hits / count, count) == pytest.approx((low, high), abs=5e-5)


def test_limits_of_all_and_of_none_are_exact() -> None:
    for count in (1, 2, 10, 10**4, 10**9):
        upper = Z**2 / (count + Z**2)
        none, every = wilson_interval(0, count), wilson_interval(1, count)
        assert none[0] == 0
        assert none[1] == pytest.approx(upper)
        assert every[0] == pytest.approx(1 - upper)
        assert every[1] == 1


def test_about_19_of_20_intervals_contain_the_share() -> None:
    for share, count in ((0.9, 40), (0.7, 100), (0.75, 1000)):
        covered = sum(
            binom.pmf(hits, count, share)
            for hits in range(count + 1)
            if (limits := wilson_interval(hits / count, count))[0] <= share <= limits[1]
        )
        assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("share", "count", "confidence", "message"),
    [
        (0.5, 0, 0.95, "at least 1"),
        (0.5, -3, 0.95, "at least 1"),
        (1.1, 10, 0.95, "1.1 is not a share"),
        (-0.1, 10, 0.95, "not a share"),
        (float("nan"), 10, 0.95, "not a share"),
        (0.5, 10, 0.0, "not a confidence"),
        (0.5, 10, 1.0, "not a confidence"),
        (0.5, 10, 95, "not a confidence"),
    ],
)
def test_impossible_values_are_refused(
    share: float, count: int, confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wilson_interval(share, count, confidence)


def test_intervals_are_those_of_accuracies_alone() -> None:
    metrics = {"loss": 3.0, "fine_top1": 0.5, "fine_top5": 1.0, "macro_f1": 0.4, "ece": 0.1}
    found = accuracy_intervals(metrics, 10)
    assert found == {
        "fine_top1": [pytest.approx(0.23659, abs=1e-5), pytest.approx(0.76341, abs=1e-5)],
        "fine_top5": [pytest.approx(0.72247, abs=1e-5), 1.0],
    }
    rows = metric_rows(metrics | {"macro_recall": 0.5}, metrics, count=10)
    assert rows == [
        ["top-1 fine", "50.00%", "23.7 to 76.3", "50.00%", "23.7 to 76.3"],
        ["top-5 fine", "100.00%", "72.2 to 100.0", "100.00%", "72.2 to 100.0"],
        ["loss (nats)", "3.0000", "", "3.0000", ""],
        ["calibration error", "10.00%", "", "10.00%", ""],
    ]


def test_the_sentences_say_why_intervals_are_wide() -> None:
    assert describe_test(200, "").endswith("about 19 contain that accuracy.")
    assert describe_test(199, "").endswith("wide because there are only 199 test pictures.")
    assert describe_test(1, "").endswith("wide because there is only 1 test picture.")
    assert "pretrained" not in describe_test(200, "")
    assert describe_test(1, "hub").endswith("of its pretraining, the accuracy is too high.")


def test_a_finished_run_has_the_intervals_of_both_views(run: Run, tiny: Dataset) -> None:
    metrics = run.metrics()
    for view in ("test", "test_flip"):
        assert set(metrics["intervals"][view]) == {"fine_top1", "fine_top5", "coarse_top1"}
        for key, limits in metrics["intervals"][view].items():
            right = round(24 * metrics[view][key])
            want = binomtest(right, 24).proportion_ci(method="wilson")
            assert limits == pytest.approx(list(want))
    found = evaluate(run, tiny)
    assert found["intervals"] == metrics["intervals"]
    assert compare_with_record(run, found) == ""
    assert all(isinstance(value, float) for value in final_metrics(run).values())


def without_intervals(run: Run) -> Run:
    """Make a run look as if an earlier version had written it; return it."""
    path = run.path / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["intervals"]
    path.write_text(json.dumps(metrics))
    update_digests(run)
    return run


def cells_of(text: str) -> dict[str, list[str]]:
    """Return the cells of a printed table, by the first cell of each row."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return {row[0]: row[1:] for row in rows}


def expected_cells(metrics: dict[str, Any], key: str) -> list[str]:
    """Return accuracy and interval, single view and with flip TTA."""
    cells, count = [], metrics["test_pictures"]
    for view in ("test", "test_flip"):
        right = round(count * metrics[view][key])
        low, high = binomtest(right, count).proportion_ci(method="wilson")
        cells += [f"{right / count:.2%}", f"{100 * low:.1f} to {100 * high:.1f}"]
    return cells


def test_the_terminal_shows_intervals_after_training_and_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--data", "sample", "--epochs", "0.2", "--device", "cpu"]
    assert main(["train", "quick", *small]) == 0
    (path,) = Path("runs").iterdir()
    outputs = [capsys.readouterr().out]
    metrics = Run(path).metrics()
    without_intervals(Run(path))
    assert main(["evaluate", str(path)]) == 0
    outputs.append(capsys.readouterr().out)
    assert "equal the recorded ones to the last digit" in outputs[1]
    for out in outputs:
        cells = cells_of(out)
        assert cells["test set,"] == ["single", "95 %", "95 %"]
        assert cells["500 pictures"] == ["view", "interval", "flip TTA", "interval"]
        for key, name in (("fine_top1", "top-1 fine"), ("coarse_top1", "top-1 coarse")):
            assert cells[name] == expected_cells(metrics, key)
        assert len(cells["loss (nats)"]) == 2
        assert "all pictures of the same kind. Of 20 such intervals" in out
        assert "only 500" not in out


def test_the_widest_table_fits_a_terminal() -> None:
    view = {"fine_top1": 1.0, "macro_recall": 0.5, "macro_f1": 1.0, "loss": 10.0, "ece": 1.0}
    table = metrics_table({"test": view, "test_flip": view, "test_pictures": 100_000})
    assert table.width is not None
    assert table.width <= 80


def test_few_test_pictures_are_given_as_the_reason_for_wide_intervals(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_config, tiny)
    out = capsys.readouterr().out
    assert "The intervals are wide because there are only 24 test pictures.\n" in out
    assert cells_of(out)["top-1 fine"] == expected_cells(run.metrics(), "fine_top1")


def test_the_json_log_has_the_intervals(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_config, tiny, display=JsonDisplay())
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["metrics"]["intervals"] == run.metrics()["intervals"]
    assert end["metrics"]["intervals"].keys() == {"test", "test_flip"}


@pytest.mark.parametrize("old", [False, True])
def test_the_report_shows_intervals(old: bool, run: Run, tiny: Dataset) -> None:
    metrics = run.metrics()
    if old:
        without_intervals(run)
    page = html.unescape(write_report(run, tiny).read_text())
    tiles = dict(
        re.findall(r'<span>([^<]+)</span><span class="interval"[^>]*>([^<]+)</span>', page)
    )
    assert list(tiles) == ["top-1 fine", "top-5 fine", "top-1 coarse", "top-1 fine, flip TTA"]
    single, flip = expected_cells(metrics, "fine_top1")[1::2]
    assert tiles["top-1 fine"] == f"{single}\N{NO-BREAK SPACE}%"
    assert tiles["top-1 fine, flip TTA"] == f"{flip}\N{NO-BREAK SPACE}%"
    assert "The intervals are wide because there are only 24 test pictures.</p>" in page
    (level, _) = scored_predictions(run)
    for name, score in zip(level.classes, level.scores, strict=True):
        low, high = binomtest(round(4 * (score.recall or 0)), 4).proportion_ci(method="wilson")
        (row,) = re.findall(rf"<tr><td>{name}</td>.*?</tr>", page, re.DOTALL)
        assert f">{100 * low:.1f} to {100 * high:.1f}</td>" in row
        values = re.findall(r'data-value="([^"]+)"', row)
        assert float(values[3]) == pytest.approx(low)  # by which the column is sorted


def test_a_class_without_test_pictures_has_no_interval(trained: Train) -> None:
    data = Dataset("made", make_split(30, 3), make_split(12, 2, seed=1), ("a", "b", "c"))
    page = write_report(trained(data), data).read_text()
    (row,) = re.findall(r"<tr><td>c</td>.*?</tr>", page, re.DOTALL)
    assert re.findall(r'data-value="([^"]+)"', row)[3] == "-1"
    assert " to " not in row


@pytest.mark.parametrize("old", [False, True])
def test_the_model_card_shows_intervals(old: bool, run: Run) -> None:
    metrics = run.metrics()
    text = card(without_intervals(run) if old else run, "me/tiny")
    assert "| 24 test pictures | single view | 95 % interval | flip TTA | 95 % interval |" in text
    for key, name in (("fine_top1", "top-1 fine"), ("coarse_top1", "top-1 coarse")):
        assert f"| {' | '.join([name, *expected_cells(metrics, key)])} |" in text
    assert "The intervals are wide because there are only 24 test pictures.\n" in text


def test_commands_read_runs_with_and_without_intervals(
    run: Run, trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    old = without_intervals(trained(seed=1))
    assert main(["runs", str(run.path.parent)]) == 0
    assert main(["compare", str(run), str(old)]) == 0
    assert f"{old.metrics()['test']['fine_top1']:.2%}" in capsys.readouterr().out
    assert final_metrics(old).keys() == final_metrics(run).keys()


@pytest.mark.parametrize("value", [5.0, -1.0])
def test_accuracies_that_do_not_exist_are_reported(value: float, run: Run, tiny: Dataset) -> None:
    path = run.path / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["fine_top1"] = value
    path.write_text(json.dumps(metrics))
    update_digests(run)
    with pytest.raises(UserError, match=f"no accuracy of {value} on 24 pictures"):
        write_report(run, tiny)
    with pytest.raises(UserError, match="The metrics are damaged"):
        format_interval(value, 24)
