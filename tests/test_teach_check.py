"""What the pictures say before a model is trained."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hundredfold.metrics.intervals import wilson_interval
from hundredfold.teach.check import check_pictures

CLASSES = ("cup", "key", "pen")


def make(counts: list[int], spread: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (N, 1280), thumbnails and labels of different pictures."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(len(counts), 1280, generator=rng)
    features = centres[labels] + spread * torch.randn(len(labels), 1280, generator=rng)
    thumbnails = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=rng).float()
    thumbnails = torch.nn.functional.interpolate(thumbnails, size=64, mode="bicubic")
    return features, thumbnails.clamp(0, 255).to(torch.uint8), labels


def test_up_to_ten_pictures_are_left_out_one_at_a_time() -> None:
    features, thumbnails, labels = make([5, 5], 14.0)
    hits = []
    for i in range(10):
        others = torch.arange(10) != i
        head = LogisticRegression(C=1.0).fit(features[others].numpy(), labels[others].numpy())
        hits.append(head.predict(features[i : i + 1].numpy())[0] == labels[i].item())
    found = check_pictures(features, thumbnails, labels, CLASSES[:2])
    assert 0 < sum(hits) < 10
    assert found.accuracy == pytest.approx(sum(hits) / 10)
    assert found.interval == pytest.approx(wilson_interval(sum(hits) / 10, 10))
    assert found.count == 10
    assert all(notes[0] == "Only 5 pictures. Add at least 5 more." for notes in found.notes)


def test_near_duplicates_count_as_one_picture() -> None:
    features, thumbnails, labels = make([12, 12], 1.0)
    for copy in range(1, 7):
        features[copy], thumbnails[copy] = features[0], thumbnails[0]
    found = check_pictures(features, thumbnails, labels, CLASSES[:2])
    assert (found.accuracy, found.count) == (1.0, 18)
    assert found.interval == wilson_interval(1.0, 18)
    assert found.notes[1] == ()
    (note,) = found.notes[0]
    assert note.startswith("7 of 12 pictures have a near duplicate. Vary the background")


def test_a_class_of_copies_cannot_be_judged() -> None:
    features, thumbnails, labels = make([12, 12, 12], 1.0)
    features[:12], thumbnails[:12] = features[0].clone(), thumbnails[0].clone()
    found = check_pictures(features, thumbnails, labels, CLASSES)
    assert (found.accuracy, found.count) == (1.0, 24)
    assert found.notes[0][0].startswith("All pictures of cup are almost the same")
    alone = check_pictures(features[:24], thumbnails[:24], labels[:24], CLASSES)
    assert (alone.accuracy, alone.interval, alone.count) == (None, None, 0)
    assert alone.notes[2] == ("No pictures yet. Add at least 10.",)


def test_pictures_in_the_wrong_class_are_mentioned() -> None:
    features, thumbnails, labels = make([20, 20, 20], 1.0)
    labels[40:46] = 0  # pens among the cups
    thumbnails[20], features[20] = thumbnails[41], features[41]
    found = check_pictures(features, thumbnails, labels, CLASSES)
    assert found.accuracy == pytest.approx(1 - 7 / 60)
    assert "6 of 26 pictures look like pen." in found.notes[0]
    assert "1 picture has a near duplicate in key." in found.notes[0]
    assert found.notes[1] == ("1 picture has a near duplicate in cup.",)


def test_one_class_or_one_picture_says_nothing_yet() -> None:
    features, thumbnails, labels = make([3], 1.0)
    for count in (1, 3):
        found = check_pictures(features[:count], thumbnails[:count], labels[:count], CLASSES[:1])
        assert (found.accuracy, found.count) == (None, 0)
        assert len(found.notes[0]) == 1
