"""Downloading data: CIFAR-100, the fallback to the sample, and Kaggle."""

import sys
from collections.abc import Iterator
from pathlib import Path

import kagglehub
import pytest
from kagglehub import exceptions
from support.serving import serve_folder

from hundredfold import UnavailableError, UserError, load_data
from hundredfold.data import cifar100, cifar100_cache
from hundredfold.support.files import UNFINISHED, cache_folder


def test_auto_falls_back_to_the_sample_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100, "URL", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    said: list[str] = []
    assert load_data("auto", said.append).source == "sample"
    assert "is not available" in said[0]
    assert "NOT comparable" in said[1]
    with pytest.raises(UnavailableError, match=r"Cannot download http://127.0.0.1:9/.*refused"):
        load_data("cifar100")
    assert not list(cache_folder().iterdir())


def test_auto_falls_back_without_a_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    assert load_data("auto", said.append).source == "sample"
    assert "Cannot write" in said[0]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL of the archive on a local server for its files."""
    folder = tmp_path / "served"
    folder.mkdir()

    with serve_folder(folder) as url:
        yield folder, f"{url}/{cifar100.ARCHIVE}"


def test_a_download_leaves_only_the_converted_copy(
    official: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (served[0] / cifar100.ARCHIVE).symlink_to(official)
    monkeypatch.setattr(cifar100, "URL", served[1])
    cache_folder().mkdir(parents=True)
    (cache_folder() / f".{cifar100_cache.DATA}.killed{UNFINISHED}").touch()
    assert load_data("auto").digest() == cifar100.DIGEST
    assert {file.name for file in cache_folder().iterdir()} == {
        cifar100_cache.DATA,
        cifar100_cache.VERIFIED,
    }
    monkeypatch.setattr(cifar100, "URL", "http://127.0.0.1:9/")
    assert load_data("cifar100").digest() == cifar100.DIGEST


def test_a_download_that_is_not_cifar100_is_deleted(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (served[0] / cifar100.ARCHIVE).write_text("<html>Please log in to this network</html>")
    monkeypatch.setattr(cifar100, "URL", served[1])
    with pytest.raises(UnavailableError, match="sent something other than CIFAR-100"):
        load_data("cifar100")
    assert not list(cache_folder().iterdir())
    assert load_data("auto", lambda _: None).source == "sample"


class Answer:
    """An HTTP response with a status code."""

    def __init__(self, status: int) -> None:
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (exceptions.UnauthenticatedError(), UnavailableError, "requires credentials for a/b"),
        (exceptions.KaggleApiHTTPError("x", Answer(403)), UnavailableError, "requires credentials"),
        (exceptions.KaggleApiHTTPError("x", Answer(404)), UserError, "has no dataset a/b"),
        (
            exceptions.KaggleApiHTTPError("x", Answer(503)),
            UnavailableError,
            "cannot provide a/b",
        ),
        (exceptions.DataCorruptionError("x"), UnavailableError, "Cannot download a/b"),
        (ConnectionError("x"), UnavailableError, "Check the network"),
    ],
)
def test_errors_of_kaggle_are_explained(
    error: Exception, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> str:
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(kind, match=said):
        load_data("kaggle:a/b")


def test_data_from_kaggle_is_read(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", lambda _: str(official.parent))
    dataset = load_data("kaggle:a/b")
    assert dataset.source == "kaggle:a/b"
    assert dataset.digest() == cifar100.DIGEST


def test_without_kagglehub_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[kaggle\]'"):
        load_data("kaggle:a/b")
