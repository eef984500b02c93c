"""Cross-validation of the head of a pretrained model."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from hundredfold import Dataset, Split, evaluate, probe, resume, train
from hundredfold.augment import generator
from hundredfold.data.folders import load_folder
from hundredfold.inference.features import predict_features
from hundredfold.metrics.folds import stratified_folds
from hundredfold.metrics.intervals import wilson_interval
from hundredfold.metrics.scores import describe_cross_validation
from hundredfold.models.build import build_model
from hundredfold.support.errors import UserError
from hundredfold.training.cross_validation import (
    FOLDS,
    REPEATS,
    cross_validate,
    group_pictures,
)
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


@given(st.lists(st.integers(5, 15), min_size=2, max_size=4), st.integers(0, 9))
def test_folds_hold_as_many_of_each_class_as_those_of_scikit_learn(
    counts: list[int], seed: int
) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = stratified_folds(labels, 5, torch.Generator().manual_seed(seed)).numpy()
    theirs = [held for _, held in StratifiedKFold(5).split(labels, labels)]
    for label in range(len(counts)):
        ours = sorted(int(((found == fold) & (labels.numpy() == label)).sum()) for fold in range(5))
        assert ours == sorted(int((labels.numpy()[held] == label).sum()) for held in theirs)


def test_folds_of_groups_are_as_even_as_those_of_scikit_learn() -> None:
    """Twelve bursts of one to four pictures in each of three classes, several times."""
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        sizes = torch.randint(1, 5, (36,), generator=rng)
        groups = torch.arange(36).repeat_interleave(sizes)
        labels = groups % 3
        found = stratified_folds(labels, 5, rng, groups).numpy()
        theirs = np.empty_like(found)
        kfold = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, held) in enumerate(kfold.split(labels, labels, groups.numpy())):
            theirs[held] = fold
        # A greedy assignment, as both are, may leave one burst more in a fold than in another.
        assert spread(found, labels) <= max(4, spread(theirs, labels))


def spread(folds: np.ndarray, labels: Tensor) -> int:
    """Return the largest difference between two folds in their number of pictures of a class."""
    counts = [np.bincount(folds[labels.numpy() == label], minlength=5) for label in range(3)]
    return max(int(count.max() - count.min()) for count in counts)


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
    features, mirrored = (
        predict_features(model, view, setup.info).numpy() for view in (images, images.flip(3))
    )
    accuracies = []
    for repeat in range(REPEATS):
        folds = stratified_folds(labels, FOLDS, generator(3, "cross-validation", repeat)).numpy()
        hits = 0
        for fold in range(FOLDS):
            held = folds == fold
            # C divides the sum of the losses by the strength, as `fit_heads` does for the mean.
            other = LogisticRegression(C=1 / 10, max_iter=2000)
            rows = np.concatenate([features[~held], mirrored[~held]])
            other.fit(rows, np.tile(labels.numpy()[~held], 2))
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
    assert not run.history() and metrics["head"]["strength"] == 1.0
    assert evaluate(run, dataset)["test"] == metrics["test"]
    with pytest.raises(UserError, match="is finished"):
        resume(run, dataset)


def noise_photos(folder: Path, copies: int) -> Path:
    """Write 20 pictures of noise in each of two classes, each as often as `copies` says."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
            for copy in range(copies):
                picture.save(folder / name / f"{i}-{copy}.png")
    return folder


def test_copies_do_not_raise_the_accuracy(tmp_path: Path) -> None:
    """Noise cannot be classified, so only copies in other folds could exceed a half."""
    folder = noise_photos(tmp_path / "photos", copies=2)
    data = load_folder(folder, lambda _: None, size=SIDE)
    setup = make_setup(probe(size=SIDE, device="cpu"), data, CPU)
    found = cross_validate(setup, data.test, strength=10.0)
    low, _ = wilson_interval(0.5, 40)  # 40 different pictures
    assert found["pictures"] == 80 and abs(found["accuracy"] - 0.5) < 0.5 - low


def test_pictures_of_a_group_and_copies_are_together_across_splits() -> None:
    pictures = torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    labels = torch.zeros(3, dtype=torch.int64)
    train = Split(pictures[:3], labels, groups=torch.tensor([7, 8, 8]))
    test = Split(pictures[[3, 0, 5]], labels, groups=torch.tensor([8, 9, 9]))
    # Rows 1 to 3 are group 8. Row 4 is a copy of row 0, and in one group with row 5.
    assert group_pictures([train, test]).tolist() == [0, 1, 1, 1, 0, 0]
    alone = [dataclasses.replace(split, groups=None) for split in (train, test)]
    assert group_pictures(alone).tolist() == [0, 1, 2, 3, 0, 5]


def test_copies_among_the_test_photos_of_a_folder_have_a_group(tmp_path: Path) -> None:
    folder = noise_photos(tmp_path / "photos", copies=3)
    data = load_folder(folder, lambda _: None, size=SIDE)
    assert data.test.groups is not None and data.train.groups is not None
    sizes = Counter([*data.train.groups.tolist(), *data.test.groups.tolist()])
    assert set(sizes.values()) == {3} and len(sizes) == 40
    without = dataclasses.replace(data, test=dataclasses.replace(data.test, groups=None))
    assert data.digest() == without.digest()  # runs of earlier versions recorded that of `without`


def test_pictures_that_all_belong_together_are_not_cross_validated(dataset: Dataset) -> None:
    blank = Split(torch.zeros(12, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(12) % 3)
    same = dataclasses.replace(dataset, train=blank, test=blank)
    setup = make_setup(probe(size=SIDE, device="cpu"), same, CPU)
    assert cross_validate(setup, blank, strength=10.0) == {}


@pytest.mark.parametrize("found", [[1], {"accuracy": 0.5}, {"accuracy": "x", "pictures": 3}])
def test_damaged_numbers_are_refused(found: object) -> None:
    with pytest.raises(UserError, match="The metrics are damaged: there is no cross-validation"):
        describe_cross_validation({"test_pictures": 3, "cross_validation": found})


def test_runs_of_earlier_versions_have_no_cross_validation() -> None:
    assert describe_cross_validation({"test_pictures": 3}) == ""
