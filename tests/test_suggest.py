"""Which pictures to label next."""

import csv
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.making import Train
from support.oblong import noise

from hundredfold import Dataset, Predictor, Run, UserError
from hundredfold.cli.main import main
from hundredfold.evaluation.suggest import UNSURE, choose_unsure_and_different, suggest
from hundredfold.inference.features import predict_features, predict_with_features
from hundredfold.inference.logits import predict_logits
from hundredfold.pictures.load import to_image


def slowly(features: torch.Tensor, probabilities: torch.Tensor, count: int) -> list[int]:
    """Return what `choose_unsure_and_different` should, in plain Python."""

    def margin(i: int) -> float:
        second, first = sorted(map(float, probabilities[i]))[-2:]
        return first - second

    def distance(i: int, j: int) -> float:
        a, b = features[i] - features.mean(0), features[j] - features.mean(0)
        return float(1 - (a * b).sum() / (a.norm() * b.norm()))

    unsure = sorted(range(len(features)), key=margin)[: UNSURE * count]
    chosen = unsure[:1]
    while len(chosen) < min(count, len(unsure)):
        left = [i for i in unsure if i not in chosen]
        chosen.append(max(left, key=lambda i: min(distance(i, j) for j in chosen)))
    return chosen


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 99))
def test_the_choice_is_that_of_plain_python(size: int, count: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(size, 5, generator=rng, dtype=torch.float64)
    probabilities = torch.randn(size, 3, generator=rng, dtype=torch.float64).softmax(1)
    found = choose_unsure_and_different(features, probabilities, count)
    assert found == slowly(features, probabilities, count)


def test_copies_come_last() -> None:
    features = torch.eye(6)[[0, 0, 0, 1, 2, 3]]
    probabilities = torch.full((6, 2), 0.5)
    assert set(choose_unsure_and_different(features, probabilities, 4)) == {0, 3, 4, 5}


def test_logits_and_features_come_from_one_pass(run: Run, tiny: Dataset) -> None:
    model, info = run.model(), run.info()
    logits, features = predict_with_features(model, tiny.test.images, info)
    assert torch.equal(logits, predict_logits(model, tiny.test.images, info))
    assert torch.equal(features, predict_features(model, tiny.test.images, info))


@pytest.fixture
def folder(tmp_path: Path, tiny: Dataset) -> Path:
    """A folder of 24 pictures, one that the model cannot know, and a damaged one."""
    path = tmp_path / "unlabelled"
    (path / "more").mkdir(parents=True)
    for number, image in enumerate(tiny.test.images):
        to_image(image).save(path / f"{number}.png")
    noise(32, 32, "RGB").save(path / "more" / "=odd.png")
    (path / "broken.png").write_text("no picture")
    return path


def test_the_command_writes_a_page_and_a_table(
    trained: Train, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    assert main(["suggest", str(run), str(folder), "--count", "25"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Suggested 25 of 26 pictures" in output
    assert "broken.png cannot be read as a picture" in output
    with Path("suggestions/suggestions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 26)]
    predictor = Predictor.load(run)
    for row in rows:
        answer = predictor(row["picture"])
        assert (row["class"], row["second class"]) == tuple(s.name for s in answer.classes[:2])
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=1e-6)
    page = Path("suggestions/suggestions.html").read_text()
    assert page.count("<li>") == 25
    assert page.index(rows[0]["picture"]) < page.index(rows[24]["picture"])
    paths = sorted(folder.rglob("[0-9]*.png"))
    first = suggest(predictor, paths, 3)
    assert len({found.path for found in first}) == 3
    margins = {path: predictor(path).classes for path in paths}
    least = min(paths, key=lambda path: margins[path][0][1] - margins[path][1][1])
    assert first[0].path == least


def test_suggestions_do_not_depend_on_the_batches(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, paths = Predictor.load(run), sorted(folder.glob("[0-9]*.png"))
    monkeypatch.setattr("hundredfold.evaluation.suggest.UNSURE", 2)
    whole = [found.path for found in suggest(predictor, paths, 3)]
    monkeypatch.setattr("hundredfold.evaluation.suggest.batch_size", lambda _: 5)
    assert [found.path for found in suggest(predictor, paths, 3)] == whole


def test_mistakes_are_explained(
    trained: Train, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    assert main(["suggest", str(run), str(folder), "--count", "0"]) == 2
    assert "--count is 0, but must be at least 1" in capsys.readouterr().err
    assert main(["suggest", str(run), str(folder / "nowhere")]) == 2
    with pytest.raises(UserError, match="None of the pictures can be read"):
        suggest(Predictor.load(run), [folder / "broken.png"])
