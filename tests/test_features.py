"""Features from the cache are those that are computed anew, whatever happens to the cache."""

import dataclasses
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.making import make_split
from torch import Tensor, nn

from hundredfold.inference import feature_cache, features
from hundredfold.inference.feature_cache import FILE, FeatureCache
from hundredfold.inference.features import cached_features, last_linear, predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.models.build import build_model
from hundredfold.models.info import ModelInfo
from hundredfold.support.files import cache_folder

INFO = ModelInfo(
    model="whitenet",
    widths=(8, 16, 16),
    labels="fine",
    classes=tuple("abc"),
    superclasses=(),
    parents=(),
    image_size=32,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.2),
)
PRETRAINED = dataclasses.replace(
    INFO, model="timm:tf_efficientnet_lite0", widths=(), batch_norm=False, levels=True
)


def images(count: int, seed: int = 0) -> Tensor:
    return make_split(count, 3, seed).images


def make_model(info: ModelInfo = INFO, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(info, "installed" if info.model.startswith("timm:") else "").eval()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures in each forward pass, those that fill the batch included."""
    batches: list[int] = []

    def counting(model: nn.Module, pictures: Tensor, info: ModelInfo) -> Tensor:
        batches.append(len(pictures))
        return predict_features(model, pictures, info)

    monkeypatch.setattr(features, "predict_features", counting)
    return batches


@torch.no_grad()
def test_features_are_what_the_head_maps_to_logits() -> None:
    model = make_model()
    found = predict_features(model, images(7), INFO)
    head = last_linear(model)
    assert found.shape == (7, head.in_features) and head.out_features == 3
    logits = predict_logits(model, images(7), INFO)
    # A model may scale its logits by a constant after the head.
    ratio = head(found) / logits
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(7, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("info", [INFO, PRETRAINED], ids=["whitenet", "lite0"])
def test_cached_features_are_the_same_bits(info: ModelInfo, computed: list[int]) -> None:
    model, pictures = make_model(info), images(90)
    want = predict_features(model, torch.cat([pictures, pictures.new_zeros(410, 3, 32, 32)]), info)
    first = cached_features(model, pictures.split(50), info)
    assert first.equal(want[:90])
    assert computed == [500, 500]  # every batch has the same size
    again = cached_features(model, pictures.split(32), info)
    assert again.equal(first) and len(computed) == 2
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    assert cached_features(model, pictures[order].split(40), info).equal(first[order])
    assert len(computed) == 2


@pytest.mark.parametrize("info", [INFO, PRETRAINED], ids=["whitenet", "lite0"])
def test_added_pictures_get_the_features_of_a_computation_of_all(
    info: ModelInfo, computed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pictures = make_model(info), images(40)
    cached_features(model, [pictures[::3]], info)
    mixed = cached_features(model, [pictures], info)
    assert computed == [500, 500]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert cached_features(model, [pictures], info).equal(mixed)
    assert computed == [500, 500, 500]


def test_progress_counts_each_picture_once() -> None:
    model, pictures, counts = make_model(), images(40), list[int]()
    for _ in range(2):
        cached_features(model, [pictures[:30], pictures[30:]], INFO, counts.append)
        assert sum(counts) == 40
        counts.clear()
    assert cached_features(model, [], INFO).shape == (0, last_linear(model).in_features)


def test_the_same_picture_twice_has_the_same_features() -> None:
    model, pictures = make_model(), images(3)
    found = cached_features(model, [pictures[[0, 1, 0]], pictures[[1]]], INFO)
    assert found[0].equal(found[2]) and found[1].equal(found[3])


CHANGES: list[dict[str, Any]] = [{"mean": (0.5, 0.4, 0.2)}, {"std": (0.2, 0.2, 0.1)}]


@pytest.mark.parametrize("changes", CHANGES)
def test_another_normalisation_has_other_features(
    changes: dict[str, Any], computed: list[int]
) -> None:
    model, other = make_model(), dataclasses.replace(INFO, **changes)
    first = cached_features(model, [images(5)], INFO)
    second = cached_features(model, [images(5)], other)
    assert len(computed) == 2 and not first.equal(second)
    assert second.equal(cached_features(model, [images(5)], other))


def test_other_weights_have_other_features_but_the_head_does_not_matter(
    computed: list[int],
) -> None:
    model = make_model()
    first = cached_features(model, [images(5)], INFO)
    with torch.no_grad():
        last_linear(model).weight.add_(1)
    assert cached_features(model, [images(5)], INFO).equal(first) and len(computed) == 1
    weight = next(w for name, w in model.named_parameters() if w.ndim == 4 and w.requires_grad)
    with torch.no_grad():
        weight.view(-1)[0].add_(0.5)
    assert not cached_features(model, [images(5)], INFO).equal(first) and len(computed) == 2


def test_a_picture_that_differs_in_one_value_is_computed(computed: list[int]) -> None:
    model, pictures = make_model(), images(5)
    cached_features(model, [pictures], INFO)
    pictures[3, 2, 31, 31] ^= 1
    cached_features(model, [pictures], INFO)
    assert computed == [500, 500]


def damage_file(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:] = bytes(len(content) - 5000)
    path.write_bytes(content)


def change_rows(path: Path) -> None:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT key, value FROM features").fetchall()
        changed = [(value[:-1] + bytes([value[-1] ^ 1]), key) for key, value in rows]
        database.executemany("UPDATE features SET value = ? WHERE key = ?", changed)
    database.close()


def change_columns(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE features (other TEXT)")
    database.close()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [damage_file, cut_file, damage_pages, change_rows, change_columns, make_folder]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_replaced(damage: Any, computed: list[int]) -> None:
    model, pictures = make_model(), images(40)
    first = cached_features(model, [pictures], INFO)
    damage(cache_folder() / FILE)
    for _ in range(2):
        assert cached_features(model, [pictures], INFO).equal(first)
    assert len(computed) >= 2
    if damage is not make_folder:  # a folder is not deleted
        passes = len(computed)
        assert cached_features(model, [pictures], INFO).equal(first)
        assert len(computed) == passes


def test_a_cache_folder_that_cannot_be_written_does_no_harm(
    computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pictures = make_model(), images(5)
    first = cached_features(model, [pictures], INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self")  # not even root can write here
    assert cached_features(model, [pictures], INFO).equal(first)
    assert computed == [500, 500]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files can have at most 16 KiB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_does_no_harm(small_files: None) -> None:
    model, pictures = make_model(), images(500)
    found = cached_features(model, pictures.split(250), INFO)
    part = predict_features(
        model, torch.cat([pictures[:250], torch.zeros_like(pictures[:250])]), INFO
    )
    assert found[:250].equal(part[:250])
    assert not (cache_folder() / FILE).exists()


def test_the_older_half_is_deleted_from_a_large_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FILE
    rows = {i.to_bytes(16, "big"): torch.full((500,), float(i)) for i in range(100)}
    for key, row in rows.items():
        with FeatureCache(path) as cache:
            cache.write({key: row})
    size = path.stat().st_size
    with FeatureCache(path) as cache:  # within the limit
        assert len(cache.read([*rows])) == 100
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 100_000)
    with FeatureCache(path) as cache:
        kept = cache.read([*rows])
    assert set(kept) == set(list(rows)[50:])
    assert all(row.equal(rows[key]) for key, row in kept.items())
    assert path.stat().st_size < 0.6 * size
    with FeatureCache(path) as cache:
        for key, row in rows.items():
            cache.write({b"new" + key: row})
    assert path.stat().st_size < 120_000


def test_more_keys_than_a_query_takes_are_read(tmp_path: Path) -> None:
    rows = {i.to_bytes(16, "big"): torch.tensor([float(i)]) for i in range(1700)}
    with FeatureCache(tmp_path / FILE) as cache:
        cache.write(rows)
        found = cache.read([*rows, b"unknown"])
    assert found.keys() == rows.keys()
    assert all(row.equal(rows[key]) for key, row in found.items())
