"""The report: correct figures, a self-contained page, and how a browser shows it."""

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page
from sklearn.metrics import precision_recall_fscore_support
from support.making import make_split, unfinish, update_digests

from hundredfold import Config, Dataset, Run, Split, UserError, load_sample, train, write_report
from hundredfold.cli.main import main
from hundredfold.evaluation.predictions import scored_predictions


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run on the sample: 100 classes in 20 superclasses."""
    config = Config(
        data="sample",
        epochs=1,
        widths=(16, 32),
        batch_size=64,
        device="cpu",
        out=str(tmp_path_factory.mktemp("runs")),
    )
    return write_report(train(config, quiet=True))


def open_page(browser: Browser, path: Path, **context: Any) -> tuple[Page, list[str]]:
    """Open a page without a network; return it and a list that collects its error messages."""
    page = browser.new_context(offline=True, **context).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    page.goto(path.as_uri())
    return page, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page(browser: Browser, reported: Path, scheme: str) -> None:
    page, complaints = open_page(browser, reported, color_scheme=scheme)
    loaded = page.eval_on_selector_all("img", "all => all.map(i => i.complete && i.naturalWidth)")
    assert len(loaded) >= 48
    assert set(loaded) == {32}
    assert page.locator(".card svg").count() == 7
    back, text = (
        page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("background", "color")
    )
    brightness = [sum(map(int, re.findall(r"\d+", value)[:3])) for value in (back, text)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    ink = page.eval_on_selector("svg text", "text => getComputedStyle(text).fill")
    assert ink == text  # figures have the page's text colour
    assert complaints == []


def test_the_page_fits_a_phone(browser: Browser, reported: Path) -> None:
    page, complaints = open_page(browser, reported, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert complaints == []


def test_the_tables_sort(browser: Browser, reported: Path) -> None:
    page, complaints = open_page(browser, reported)
    table = page.locator("table.sorts").first

    def column(i: int) -> list[str]:
        return table.locator(f"tbody tr td:nth-child({i})").all_inner_texts()

    def numbers(i: int) -> list[float]:
        return [float(text) if text[0].isdigit() else -1 for text in column(i)]

    assert numbers(7) == sorted(numbers(7))  # lowest F1 first
    table.locator("th button", has_text="recall").click()
    assert numbers(5) == sorted(numbers(5), reverse=True)
    table.locator("th button", has_text="recall").click()
    assert numbers(5) == sorted(numbers(5))
    table.locator("th", has_text="class").first.locator("button").click()
    names = column(1)
    assert names == sorted(names)
    table.locator("th", has_text="class").first.locator("button").click()
    assert column(1) == names[::-1]
    assert complaints == []


def test_the_page_is_self_contained(reported: Path) -> None:
    text = reported.read_text()
    sources = re.findall(r"(?:src|href|xlink:href)=\"([^\"]{0,20})", text)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert reported.stat().st_size < 10e6
    figures = reported.parent / "figures"
    for name in ("accuracy", "loss", "rate", "confusion-fine", "confusion-coarse", "coverage"):
        assert (figures / f"{name}.png").stat().st_size > 1000
        assert (figures / f"{name}.svg").read_text().startswith("<svg")


def test_the_table_equals_scikit_learns_figures(reported: Path) -> None:
    run = Run(reported.parent)
    test = run.test_logits()
    predicted = test["logits"].argmax(1)
    _, recall, _, support = precision_recall_fscore_support(
        test["labels"], predicted, labels=range(100), zero_division=0
    )
    text = re.sub(r"\s+", " ", html.unescape(reported.read_text()))
    for name, value, count in zip(run.info().classes, recall, support, strict=True):
        row = re.search(rf"<tr><td>{name}</td>.*?</tr>", text)
        assert row
        cells = re.findall(r'data-value="([^"]+)"', row[0])
        assert int(cells[0]) == count
        assert float(cells[2]) == pytest.approx(value)


def test_the_same_run_gives_the_same_page(reported: Path) -> None:
    before = reported.read_bytes()
    assert write_report(reported.parent).read_bytes() == before


def make_dataset(classes: tuple[str, ...], tests: int) -> Dataset:
    """Return a dataset without superclasses whose last class is absent from its test split."""
    test = make_split(tests, len(classes) - 1, seed=1)
    return Dataset("made", make_split(2 * len(classes), len(classes)), test, classes)


@pytest.mark.parametrize(
    "classes",
    [
        ("cat", "dog"),
        ("猫", "狗", "ß <script>alert(1)</script>"),
        ("an exceedingly long name " * 10, "b", "c", "d", "e", "f", "g"),
        tuple(f"class {i}" for i in range(1000)),
    ],
    ids=["two", "scripts", "long", "thousand"],
)
def test_the_page_is_correct_with_any_class_names(
    classes: tuple[str, ...], tiny_config: Config, browser: Browser
) -> None:
    config = dataclasses.replace(tiny_config, validation=0, epochs=1, widths=(8,), batch_size=64)
    dataset = make_dataset(classes, min(300, 3 * len(classes)))
    path = write_report(train(config, dataset, quiet=True), dataset)
    text = path.read_text()
    assert "nan" not in re.sub(r'(src|xlink:href)="[^"]*"', "", text).lower()
    assert html.escape(classes[-1]) in text
    assert "<script>alert" not in text
    assert "There were no validation pictures, so" in text
    assert path.stat().st_size < 10e6
    page, complaints = open_page(browser, path, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert complaints == []


def test_a_model_without_mistakes_has_neither_confused_pairs_nor_mistakes(
    tiny: Dataset, run: Run
) -> None:
    logits = 9 * torch.nn.functional.one_hot(tiny.test.labels, 6).float()
    run.finish(
        run.model().state_dict(),
        run.info(),
        run.metrics(),
        {"logits": logits, "flip_logits": logits, "labels": tiny.test.labels},
    )
    assert all(level.correct.all() for level in scored_predictions(run))
    text = write_report(run, tiny).read_text()
    assert "Most confused pairs" not in text
    assert "Most confident mistakes" not in text
    assert "in the same superclass as the label" not in text


def test_without_the_data_the_page_has_no_pictures_and_says_why(tiny: Dataset, run: Run) -> None:
    told: list[str] = []
    text = write_report(run, tell=told.append).read_text()  # the run's data is named tiny: no path
    assert "Shown without pictures: There is no file or folder tiny" in text
    assert "<img" not in text
    assert "no pictures: There is no file or folder tiny" in told[0]
    other = Split(tiny.test.images.flip(3), tiny.test.labels)
    with pytest.raises(UserError, match="not the data"):
        write_report(run, dataclasses.replace(tiny, test=other))
    assert main(["report", str(run), "--data", "nowhere"]) == 2


@pytest.mark.parametrize(
    ("name", "content"), [("history.jsonl", ""), ("metrics.json", "{}"), ("environment.json", "{}")]
)
def test_a_damaged_run_is_reported(run: Run, name: str, content: str) -> None:
    (run.path / name).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        write_report(run)
    update_digests(run)
    with pytest.raises(UserError, match="damaged"):
        write_report(run)


def test_a_run_that_is_not_finished_has_no_report(
    tiny: Dataset, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinish(run)
    with pytest.raises(UserError, match="not finished"):
        write_report(run, tiny)
    assert main(["report", str(run)]) == 2
    assert main(["report", "nowhere"]) == 2
    assert "no run at nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_damaged_logits_are_reported(tiny: Dataset, run: Run, content: bytes) -> None:
    (run.path / "test_logits.npz").write_bytes(content)
    update_digests(run)
    with pytest.raises(UserError, match=r"test_logits\.npz"):
        write_report(run, tiny)


def test_the_command_prints_the_path_of_the_page(
    reported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(reported.parent)]) == 0
    assert str(reported) in capsys.readouterr().out.replace("\n", "")


def test_levels_agree_with_the_recorded_metrics(reported: Path) -> None:
    run = Run(reported.parent)
    fine, coarse = scored_predictions(run)
    metrics = json.loads((run.path / "metrics.json").read_text())["test"]
    assert fine.correct.double().mean().item() == metrics["fine_top1"]
    assert coarse.correct.double().mean().item() == metrics["coarse_top1"]
    assert len(load_sample().test) == len(fine.labels)


def test_the_page_says_how_many_pictures_calibrated_the_probabilities(
    run: Run, tiny: Dataset, reported: Path
) -> None:
    assert "a temperature fitted on 100 validation pictures.\n" in reported.read_text()
    assert (
        "fitted on 24 validation pictures. As these are few, the temperature is kept near 1."
        in write_report(run, tiny).read_text()
    )
