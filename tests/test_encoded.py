"""Pictures that do not fit into the cache are decoded when needed, with the same results."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.making import Load, Notes
from support.pets import picture, pictures, scene
from support.stopping import interrupted

from hundredfold import Config, UserError, evaluate, load_data, resume, train
from hundredfold.augment import channel_stats
from hundredfold.data.dataset import Split
from hundredfold.data.encoded import EncodedPictures, ReadingSeconds
from hundredfold.support.files import cache_folder
from hundredfold.support.units import parse_size
from hundredfold.training.batches import batches, describe_waiting
from hundredfold.training.loop import StepRecord
from hundredfold.training.setup import make_setup

COUNTS = {"train/a": 30, "train/b": 29, "test/a": 5, "test/b": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures, two of which are damaged."""
    folder = pictures(tmp_path / "pets", COUNTS)
    (folder / "train/a/bad.png").write_text("bad")
    whole = (folder / "train/b/train-b-0.png").read_bytes()
    (folder / "train/b/cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def config(tiny_config: Config, folder: Path) -> Config:
    """A configuration that keeps no decoded pictures."""
    return dataclasses.replace(
        tiny_config, epochs=2, data=str(folder), cache="0", checkpoint="1steps", cutmix=0.5
    )


def assert_same(store: object, want: Split, split: Split) -> None:
    """Assert that a split is of encoded pictures and has the pixels and labels of another one."""
    assert isinstance(store, EncodedPictures)
    assert split.images.equal(want.images) and split.labels.equal(want.labels)
    assert torch.cat(list(split.parts(7))).equal(want.images)
    assert split[torch.tensor([5, 0, 5])].images.equal(want.images[[5, 0, 5]])
    assert split[1:1].images.shape == (0, *want.images.shape[1:])
    assert split.nbytes == want.nbytes


def test_encoded_pictures_are_those_of_the_cache(folder: Path, load: Load, said: list[str]) -> None:
    want, encoded = load(folder), load(folder, cache="0")
    assert not isinstance(encoded.train.store, EncodedPictures)  # they are in the cache
    for file in (cache_folder() / "pictures").glob("*.pixels"):
        file.unlink()
    said.clear()
    for cache in ("0", "215kB"):  # 70 pictures take 215,040 bytes
        encoded = load(folder, cache=cache)
        for name, split in want.splits.items():
            assert_same(encoded.splits[name].store, split, encoded.splits[name])
        assert encoded.digest() == want.digest()
    assert "decoded whenever they are needed" in said[-1]
    assert any("bad.png" in sentence and "cut.png" in sentence for sentence in said)
    assert load(folder, cache="219kB").digest() == want.digest()
    assert list((cache_folder() / "pictures").glob("*.pixels"))


@pytest.mark.parametrize("processes", [10, 10_000])
def test_each_file_is_checked_once(
    processes: int, folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hundredfold.data.decode.MIN_FOR_PROCESSES", processes)
        dataset = load(folder, cache="0")
    want, stats = dataset.digest(), channel_stats(dataset.train.parts())
    (facts,) = (cache_folder() / "pictures").glob("*.facts")
    whole = facts.read_bytes()
    for damaged in (b"", whole[:-1], whole[:50], whole.replace(b"PNG", b"GIF"), whole + b"x"):
        facts.write_bytes(damaged)
        assert load(folder, cache="0").digest() == want
        assert facts.read_bytes() == whole

    def refuse(*_: object) -> None:
        raise AssertionError("pictures are checked again")

    monkeypatch.setattr("hundredfold.data.pixel_cache.decode", refuse)
    again = load(folder, cache="0")
    assert again.digest() == want and again.train.channel_stats() == stats
    (results,) = (cache_folder() / "pictures").glob("*.results")
    whole = results.read_bytes()
    results.write_bytes(whole[:40] + whole[41:])
    assert again.digest() == want and again.train.channel_stats() == stats
    assert sorted(results.read_bytes()) == sorted(whole)
    monkeypatch.setattr(EncodedPictures, "batches", refuse)
    again = load(folder, cache="0")
    assert again.digest() == want and again.train.channel_stats() == stats
    with pytest.raises(AssertionError, match="checked again"):  # a part of the pictures
        again.train.select(torch.arange(50)).channel_stats()
    picture(folder / "train/a/train-a-3.png")  # a changed file is
    with pytest.raises(AssertionError, match="checked again"):
        load(folder, cache="0")


def test_training_evaluation_and_resuming_give_the_same_bits(config: Config) -> None:
    want = train(dataclasses.replace(config, cache=""), quiet=True)
    for file in (cache_folder() / "pictures").iterdir():
        file.unlink()
    run = train(config, quiet=True)
    assert not list((cache_folder() / "pictures").glob("*.pixels"))
    data = load_data(config.data, lambda _: None, cache="0")
    continued = resume(interrupted(config, data, 3), quiet=True)
    for other in (run, continued):
        for name in ("weights.safetensors", "test_logits.npz"):
            assert (other.path / name).read_bytes() == (want.path / name).read_bytes()
        assert other.metrics()["test"] == want.metrics()["test"]
        assert evaluate(other)["test"] == want.metrics()["test"]
    assert not list((cache_folder() / "pictures").glob("*.pixels"))


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_do_not_depend_on_the_number_of_readers(
    threads: int, config: Config, load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    device, many = torch.device("cpu"), dataclasses.replace(config, batch_size=4)
    encoded = make_setup(many, load(folder, cache="0"), device)
    decoded = make_setup(many, load(folder), device)
    for start in (0, 5):
        pairs = zip(batches(encoded, 1, start), batches(decoded, 1, start), strict=True)
        for (images, labels), (want, want_labels) in pairs:
            assert images.equal(want) and labels.equal(want_labels)


@pytest.mark.parametrize("change", [Path.unlink, picture, lambda path: path.write_text("bad")])
def test_a_file_that_changes_during_training_is_named(
    change: Callable[[Path], object], config: Config, folder: Path
) -> None:
    dataset = load_data(str(folder), lambda _: None, cache="0")
    setup = make_setup(config, dataset, torch.device("cpu"))
    path = folder / setup.train_split.names[0]
    change(path)
    with pytest.raises(UserError, match=path.name):
        list(batches(setup, 0))


def test_training_says_what_it_waits_for(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load_data(str(folder), lambda _: None, cache="0").train
    assert isinstance(split.store, EncodedPictures)
    for read, decode, waited, seconds, want in (
        (1.0, 3.0, 2.5, 5.0, "50% of the time, mostly for decoding them (75%)"),
        (8.0, 2.0, 1.2, 10.0, "12% of the time, mostly for reading their files (80%)"),
        (8.0, 2.0, 0.9, 10.0, ""),
        (0.0, 0.0, 0.0, 10.0, ""),
    ):
        split.store.seconds = ReadingSeconds(read, decode, waited)
        said = describe_waiting(split, seconds)
        assert want in said and bool(want) == bool(said)
    assert describe_waiting(Split(split.images, split.labels), 0.1) == ""
    monkeypatch.setattr("hundredfold.training.batches.MUCH", -1)
    notes = Notes()
    train(config, display=notes)
    assert sum("waits for pictures" in sentence for sentence in notes.said) == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("2 kB", 2000), ("500MB", 5e8), ("1.5GB", 1.5e9), ("2TB", 2e12)]
    + [(bad, -1) for bad in ("", "GB", "-1GB", "5 G", "5gb", "1e9", "5GB5", "1,5GB")],
)
def test_sizes_are_parsed(text: str, size: float) -> None:
    assert parse_size(text) == size


def test_a_size_that_is_none_is_refused(folder: Path, config: Config) -> None:
    with pytest.raises(UserError, match="--cache is 'much', but must be a size such as"):
        dataclasses.replace(config, cache="much")
    with pytest.raises(UserError, match="'much', but must be a size such as 500MB"):
        load_data(str(folder), lambda _: None, cache="much")
    assert not (cache_folder() / "pictures").exists()


def test_near_duplicates_are_those_of_the_cache(tmp_path: Path, load: Load) -> None:
    root = tmp_path / "scenes"
    for i in range(12):
        for copy in range(2 if i < 4 else 1):
            path = root / "ab"[i % 2] / f"{i}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(i).resize((90 + 9 * copy, 90 + 9 * copy)).save(path)
    encoded = load(root, cache="0")
    want = load(root)
    assert isinstance(encoded.train.store, EncodedPictures)
    groups = encoded.train.groups
    assert groups is not None and len(groups.unique()) < len(groups)
    assert want.train.groups is not None and groups.equal(want.train.groups)
    assert encoded.digest() == want.digest()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start no processes")
def test_a_killed_worker_ends_training_with_a_sentence(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.data.encoded.CHUNKS_AHEAD", 1)  # so that work is left

    class Killer(Notes):
        killed = False

        def step(self, step: StepRecord, epochs_done: int, progress: float) -> None:
            if not self.killed:  # the error may come at any moment after this
                self.killed = True
                children = list(Path("/proc/self/task").glob("*/children"))
                (worker, *_) = (pid for path in children for pid in path.read_text().split())
                os.kill(int(worker), signal.SIGKILL)

    with pytest.raises(UserError, match="A process that decodes pictures was killed"):
        train(dataclasses.replace(config, batch_size=2, checkpoint="1h"), display=Killer())


SCRIPT = """
import sys
import torch
from hundredfold.data.load import load_data

data = load_data(sys.argv[1], lambda _: None, cache="0")
for _ in data.train.batches([torch.arange(40)] * 1000):
    print("ready", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start no processes")
def test_workers_end_with_a_killed_process(folder: Path) -> None:
    program = [sys.executable, "-c", SCRIPT, str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        assert any(path.read_text() for path in children)
        process.kill()
        output, _ = process.communicate(timeout=60)  # the last process to end closes the pipe
        assert set(output.splitlines()) <= {b"ready"}


AFTER_AN_ERROR = """
import sys
from pathlib import Path
import torch
from hundredfold import UserError
from hundredfold.data.load import load_data

data = load_data(sys.argv[1], lambda _: None, cache="0")
path = Path(sys.argv[1]) / data.train.names[5]
content = path.read_bytes()
path.write_bytes(b"bad")
for count in (1, 20):
    try:
        list(data.train.batches([torch.arange(40)] * count))
    except UserError as error:
        print(path.name in str(error))
path.write_bytes(content)
print(sum(len(images) for images in data.train.batches([torch.arange(40)] * 20)))
"""


def test_pictures_can_be_read_after_an_error(folder: Path) -> None:
    program = [sys.executable, "-c", AFTER_AN_ERROR, str(folder)]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\nTrue\n800\n", "")
