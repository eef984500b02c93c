"""Figures of the pages: those of the newest result, which is no older than the code behind it."""

import importlib.util
import json
import platform
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def newest(name: str) -> Path:
    """Return the last result of a benchmark."""
    return max(RESULTS.glob(f"????-??-??-{name}.json"))


def digests(names: list[str]) -> dict[str, str]:
    """Return what benchmarks/common.py does."""
    spec = importlib.util.spec_from_file_location("common", ROOT / "benchmarks" / "common.py")
    assert spec and spec.loader
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    found: dict[str, str] = common.code_digests(names)
    return found


@pytest.mark.parametrize("name", ["audit", "audit-photos"])
def test_a_result_is_no_older_than_its_code(name: str) -> None:
    path = newest(name)
    result = json.loads(path.read_text())
    if not platform.python_version().startswith(result["machine"]["python"].rsplit(".", 1)[0]):
        pytest.skip("another version of Python writes the same code otherwise")
    now = digests(list(result["sources"]))
    changed = [source for source, digest in result["sources"].items() if now[source] != digest]
    assert not changed, (
        f"{path.name} was made by earlier code: {', '.join(changed)} changed since, in more than "
        f"comments. Run benchmarks/{name.replace('-', '_')}.py again, and bring docs/audit.md up "
        "to date."
    )


def test_a_changed_comment_makes_no_figure_older(tmp_path: Path) -> None:
    texts = ('"""One."""\nA = 1  # one\n', '"""Two."""\n\nA = 1\n', '"""One."""\nA = 2  # one\n')
    paths = [str(tmp_path / f"{i}.py") for i in range(3)]
    for path, text in zip(paths, texts, strict=True):
        Path(path).write_text(text)
    first, second, third = digests(paths).values()
    assert first == second != third


def cells(page: str, beginning: str) -> list[str]:
    """Return the cells of the table's row that begins so, but for the first."""
    (row,) = re.findall(rf"^\| {re.escape(beginning)} +\|(.*)\|$", page, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_the_page_of_the_audit_has_the_figures_of_the_newest_result() -> None:
    path, page = newest("audit"), (ROOT / "docs" / "audit.md").read_text()
    result: dict[str, Any] = json.loads(path.read_text())
    assert f"results/{path.name}" in page
    found, known = result["found"], result["known duplicates"]
    for row, key in {
        "near duplicates: pairs across training and test": "near_splits",
        "near duplicates: pairs in two classes of one split": "near_classes",
        "near duplicates: pairs in one class of one split": "near_within",
        "labels that are likely wrong": "labels",
    }.items():
        assert cells(page, row) == [f"{found[key]:,}"]
    for judgment, row in enumerate(("exact copy", "one camera shot", "very similar")):
        halves = [known[half][str(judgment)] for half in ("chosen on", "unseen")]
        want = [f"{hits} of {count}" for hits, count in halves]
        assert cells(page, row) == want
    words = " ".join(page.split())
    noise = result["labels changed at random"]
    for figure in (
        f"{known['pairs across splits']:,} pairs across the splits",
        f"name {known['test pictures in them']:,} test pictures",
        f"about {known['estimated precision, by test picture']:.0%}".replace("%", " %"),
        f"{noise['changed']:,}, were changed at random. "
        f"The audit suspects {noise['suspects']:,} labels there",
        f"suspects {result['suspects']['train']} of the training set and "
        f"{result['suspects']['test']} of the test set",
    ):
        assert figure in words, figure


def test_the_page_of_the_audit_has_the_figures_of_changed_labels_of_photos() -> None:
    path, page = newest("audit-photos"), (ROOT / "docs" / "audit.md").read_text()
    result: dict[str, Any] = json.loads(path.read_text())
    assert f"results/{path.name}" in page
    sets = [name for name, figures in result.items() if "features" in figures]
    assert sets == ["waste", "clothing"]
    for name, way in [(name, way) for name in sets for way in ("features", "networks")]:
        figures = result[name].get(way)
        if figures:
            recall, precision = (f"{figures[key]['mean']:.0%}" for key in ("recall", "precision"))
            want = [figures["changed"], f"{figures['suspects']['mean']:g}", recall, precision]
            row = [cell.replace(" %", "%") for cell in cells(page, f"{name}, {way}")]
            assert row[:4] == list(map(str, want))


def test_the_curve_reads_results_of_before_and_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    curve = importlib.import_module("curve")
    monkeypatch.setattr(curve, "RESULTS", tmp_path)
    monkeypatch.setattr(curve, "PICTURE", tmp_path / "curve.png")
    (tmp_path / "2026-11-27-peer.json").write_text((RESULTS / "2026-11-27-peer.json").read_text())
    before = [(RESULTS / f"2026-11-27-{name}.json").read_text() for name in ("curve", "strong")]
    now = [re.sub(r'(["\.])top1"', r'\1fine_top1"', text) for text in before]
    drawn = []
    for points, strong in (before, now):
        (tmp_path / "2026-11-28-strong.json").write_text(strong)
        curve.draw([*json.loads(points)["points"], curve.recipe_point("strong")])
        drawn.append((tmp_path / "curve.png").read_bytes())
    assert before != now
    assert drawn[0] == drawn[1]
