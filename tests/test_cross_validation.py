"""Cross-validation of the head of a pretrained model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from hundredfold import Dataset, Split, evaluate, probe, resume, train
from hundredfold.augment import generator
from hundredfold.inference.features import predict_features
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.metrics.scores import describe_cross_validation
from hundredfold.models.build import build_model
from hundredfold.support.errors import UserError
from hundredfold.training.cross_validation import FOLDS, REPEATS, cross_validate
from hundredfold.training.setup import make_setup

CPU = torch.device("cpu")
SIDE = 48
labels_of_some = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(labels_of_some, st.integers(2, 5), st.integers(0, 9))
def test_each_class_is_spread_evenly(labels: list[int], folds: int, seed: int) -> None:
    found = stratified_folds(torch.tensor(labels), folds, torch.Generator().manual_seed(seed))
    for label in set(labels):
        mine = [int(f) for f, name in zip(found, labels, strict=True) if name == label]
        counts = [mine.count(fold) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1
    sizes = [int((found == fold).sum()) for fold in range(folds)]
    assert sum(sizes) == len(labels)


@given(labels_of_some, st.integers(2, 5), st.data())
def test_no_group_is_divided(labels: list[int], folds: int, data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 6), min_size=len(labels), max_size=len(labels)))
    rng = torch.Generator().manual_seed(0)
    found = stratified_folds(torch.tensor(labels), folds, rng, torch.tensor(groups)).tolist()
    pairs = set(zip(groups, found, strict=True))
    assert len(pairs) == len(set(groups))


def coloured(count: int, seed: int) -> Split:
    """Return noisy pictures of three classes: red, green and blue."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 160, (count, 3, SIDE, SIDE), generator=rng)
    images[torch.arange(count), labels] += 40
    return Split(images.to(torch.uint8), labels)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset("coloured", coloured(36, 0), coloured(12, 1), ("red", "green", "blue"))


def test_the_accuracy_equals_that_of_scikit_learn(dataset: Dataset) -> None:
    setup = make_setup(probe(size=SIDE, device="cpu", seed=3), dataset, CPU)
    found = cross_validate(setup, dataset.test, strength=10.0)
    splits = [setup.train_split, setup.validation_split, dataset.test]
    images = torch.cat([split.images for split in splits])
    labels = torch.cat([split.labels for split in splits])
    model = build_model(setup.info, "installed")
    features = predict_features(model, images, setup.info).numpy()
    accuracies = []
    for repeat in range(REPEATS):
        folds = stratified_folds(labels, FOLDS, generator(3, "cross-validation", repeat)).numpy()
        hits = 0
        for fold in range(FOLDS):
            held = folds == fold
            # C divides the sum of the losses by the strength, as `fit_heads` does for the mean.
            other = LogisticRegression(C=1 / 10, max_iter=2000)
            other.fit(features[~held], labels.numpy()[~held])
            hits += int((other.predict(features[held]) == labels.numpy()[held]).sum())
        accuracies.append(hits / len(labels))
    expected = sum(accuracies) / REPEATS
    # A picture on the border between two classes may fall to either side.
    assert found["accuracy"] == pytest.approx(expected, abs=1.01 / len(labels))
    assert found["pictures"] == 48
    assert tuple(found["interval"]) == wilson_interval(found["accuracy"], 48)


def test_a_run_with_few_test_pictures_is_cross_validated(dataset: Dataset, tmp_path: Path) -> None:
    run = train(probe(size=SIDE, device="cpu", out=str(tmp_path)), dataset, quiet=True)
    metrics = run.metrics()
    assert metrics["cross_validation"]["pictures"] == 48
    sentence = describe_cross_validation(metrics)
    assert "only 12 pictures" in sentence and "all 48 pictures (5 folds, 3 times)" in sentence
    assert not run.history() and metrics["head"]["strength"] == 10.0
    assert evaluate(run, dataset)["test"] == metrics["test"]
    with pytest.raises(UserError, match="is finished"):
        resume(run, dataset)
