"""Compare libraries that stream pictures: speed, the order of the batches, and exact resuming.

    pip install litdata mosaicml-streaming webdataset
    python benchmarks/readers.py --save

All read the same JPEG files of 64 px, each in its own format, on the local disk. They decode them
with the same function, and return batches in a random order. Each reading is in a process of its
own, and the libraries take turns.
"""

import hashlib
import importlib.metadata
import io
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from common import save_result, spread
from million import make_content
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hundredfold.data.decode import DIGEST_BYTES
from hundredfold.data.encoded import EncodedPictures
from hundredfold.pictures.pixels import open_picture, read_square

SIDE, BATCH, SEED = 64, 512, 1
PER_SHARD = 1000


@dataclass(frozen=True)
class Options:
    """What to measure."""

    pictures: int = 50_000
    """Number of pictures."""
    repeats: int = 3
    """Number of times that each library reads them for its speed."""
    save: bool = False
    """Write the result to benchmarks/results."""
    read: str = ""
    """Read with this library in this process and print the figures."""
    folder: Path = Path()
    """Folder of the pictures to read."""
    workers: int = 2
    """Number of processes, or threads, that read."""
    stop: int = 0
    """Number of batches after which to stop and to save the state; 0 for all."""
    resume: bool = False
    """Go on from the saved state."""


Sample = tuple[np.ndarray, int]
Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches of pixels (B, 3, SIDE, SIDE) uint8 and numbers of the pictures (B,) int64."""
Reader = tuple[Batches, Callable[[], Any]]
"""Batches, and a function that returns the state after the last one."""


def decode(content: bytes, number: int) -> Sample:
    """Return the pixels and the number of a picture."""
    with open_picture(io.BytesIO(content)) as image:
        return np.ascontiguousarray(read_square(image, SIDE).transpose(2, 0, 1)), number


def paths_in(folder: Path) -> list[str]:
    """Return the paths of the pictures in the order of their numbers."""
    return [str(folder / f"{i}.jpg") for i in range(len(list(folder.iterdir())))]


# One function for each library: (folder, workers, state) -> Reader. The state is None, or what the
# second function of the reader returned.


def hundredfold(folder: Path, workers: int, state: Any) -> Reader:
    """Read as training does with pictures that do not fit into the cache."""
    torch.set_num_threads(workers)
    paths = paths_in(folder)
    digests = [
        hashlib.blake2b(Path(path).read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
        for path in paths
    ]
    store, done = EncodedPictures(paths, digests, SIDE, "crop"), [state or 0]
    numbers = order(len(paths)).split(BATCH)[done[0] :]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, rows in zip(store.batches(numbers), numbers, strict=True):
            done[0] += 1
            yield images, rows

    return batches(), lambda: done[0]


def order(count: int) -> Tensor:
    """Return a random order of the pictures."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SEED))


class Files(Dataset[Sample]):
    """Pictures in files, for torch's DataLoader."""

    def __init__(self, folder: Path) -> None:
        self.paths = paths_in(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Sample:
        return decode(Path(self.paths[number]).read_bytes(), number)


def dataloader(folder: Path, workers: int, state: Any) -> Reader:
    """Read by torch's DataLoader, with the order of the batches as its sampler."""
    files, done = Files(folder), [state or 0]
    sampler: Any = [part.tolist() for part in order(len(files)).split(BATCH)][done[0] :]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, numbers in DataLoader(files, batch_sampler=sampler, num_workers=workers):
            done[0] += 1
            yield images, numbers

    return batches(), lambda: done[0]


def webdataset(folder: Path, workers: int, state: Any) -> Reader:
    """Read shards of WebDataset. It has no state, so a resumed reading skips what it had before."""
    import webdataset as wds  # noqa: PLC0415

    def decoded(sample: dict[str, bytes]) -> Sample:
        return decode(sample["jpg"], int(sample["cls"]))

    shards = sorted(map(str, folder.with_name("webdataset").glob("*.tar")))
    source = wds.WebDataset(
        shards, shardshuffle=len(shards), detshuffle=True, seed=SEED,
        workersplitter=wds.split_by_worker,
    )  # fmt: skip
    samples = source.shuffle(1000, seed=SEED).map(decoded).batched(BATCH, partial=True)
    batches = islice(wds.WebLoader(samples, batch_size=None, num_workers=workers), state or 0, None)
    done = [state or 0]

    def counted() -> Iterator[tuple[Tensor, Tensor]]:
        for images, numbers in batches:
            done[0] += 1
            yield torch.as_tensor(images), torch.as_tensor(numbers)

    return counted(), lambda: done[0]


def litdata(folder: Path, workers: int, state: Any) -> Reader:
    """Read chunks of litdata."""
    import litdata as ld  # noqa: PLC0415

    source = ld.StreamingDataset(
        str(folder.with_name("litdata")), shuffle=True, seed=SEED, drop_last=False,
        transform=lambda sample: decode(sample["jpg"], sample["number"]),
    )  # fmt: skip
    loader = ld.StreamingDataLoader(source, batch_size=BATCH, num_workers=workers)
    if state:
        loader.load_state_dict(state)
    return loader, loader.state_dict


def mosaicml(folder: Path, workers: int, state: Any) -> Reader:
    """Read shards of mosaicml-streaming."""
    import streaming  # noqa: PLC0415

    class Decoded(streaming.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return decode(sample["jpg"], sample["number"])

    source = Decoded(
        local=str(folder.with_name("mosaicml")), shuffle=True, shuffle_seed=SEED, batch_size=BATCH
    )
    loader = streaming.StreamingDataLoader(source, batch_size=BATCH, num_workers=workers)
    if state:
        loader.load_state_dict(state)
    return loader, loader.state_dict


READERS: dict[str, Callable[[Path, int, Any], Reader]] = {
    "hundredfold": hundredfold,
    "torch": dataloader,
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mosaicml,
}


def content(folder: Path, number: int) -> dict[str, Any]:
    """Return a sample as litdata and mosaicml-streaming store it."""
    return {"jpg": (folder / f"{number}.jpg").read_bytes(), "number": number}


def prepare(folder: Path, count: int) -> None:
    """Write the pictures as files and in the format of each library."""
    import litdata as ld  # noqa: PLC0415
    import streaming  # noqa: PLC0415
    import webdataset as wds  # noqa: PLC0415

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        make_content(rng, i).save(folder / f"{i}.jpg", quality=85)
    samples = partial(content, folder)
    tars = folder.with_name("webdataset")
    tars.mkdir()
    with wds.ShardWriter(f"{tars}/%06d.tar", maxcount=PER_SHARD, verbose=0) as writer:
        for i in range(count):
            writer.write({"__key__": f"{i:08d}", "jpg": samples(i)["jpg"], "cls": i})
    size = PER_SHARD * 3000
    columns = {"jpg": "bytes", "number": "int"}
    mds = str(folder.with_name("mosaicml"))
    with streaming.MDSWriter(out=mds, columns=columns, size_limit=size) as mosaic:
        for i in range(count):
            mosaic.write(samples(i))
    ld.optimize(
        samples, list(range(count)), str(folder.with_name("litdata")), chunk_bytes=size,
        num_workers=1, verbose=False,
    )  # fmt: skip


def read(options: Options) -> dict[str, Any]:
    """Read in this process; return the seconds from the first batch on, and the order."""
    file = options.folder.with_name(f"{options.read}.state")
    state = pickle.loads(file.read_bytes()) if options.resume else None
    batches, current = READERS[options.read](options.folder, options.workers, state)
    numbers: list[int] = []
    started = 0.0
    for i, (images, labels) in enumerate(batches):
        assert images.shape[1:] == (3, SIDE, SIDE)
        numbers += labels.tolist()
        started = started or time.perf_counter()
        if i + 1 == options.stop:
            break
    seconds = time.perf_counter() - started
    if options.stop:
        file.write_bytes(pickle.dumps(current()))
    return {"per second": (len(numbers) - BATCH) / seconds, "numbers": numbers}


def run(name: str, folder: Path, *flags: str) -> dict[str, Any]:
    """Read in another process."""
    command = [sys.executable, __file__, "--read", name, "--folder", str(folder), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{name} {flags}: {result.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def check(name: str, folder: Path, whole: Sequence[int], total: int) -> dict[str, Any]:
    """Return whether the order depends on the number of readers, and whether resuming is exact."""
    half = total // BATCH // 2
    one = run(name, folder, "--workers", "1")["numbers"]
    first = run(name, folder, "--stop", str(half))["numbers"]
    rest = run(name, folder, "--resume")["numbers"]
    try:
        other = run(name, folder, "--resume", "--workers", "1")["numbers"]
    except SystemExit:
        other = []
    return {
        "each picture once": sorted(whole) == list(range(total)),
        "same order in another process": first == list(whole[: len(first)]),
        "same order with one reader": one == list(whole),
        "resumes exactly": first + rest == list(whole),
        "resumes exactly with one reader": first + other == list(whole),
    }


def version(name: str) -> str:
    """Return the installed version of a library; an empty text for hundredfold."""
    return "" if name == "hundredfold" else importlib.metadata.version(name)


def main() -> None:
    """Measure, print and save."""
    options = tyro.cli(Options)
    if options.read:
        print(json.dumps(read(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, total = Path(temporary) / "pictures", options.pictures
        prepare(folder, total)
        rows: dict[str, dict[str, Any]] = {}
        speeds: dict[str, list[float]] = {name: [] for name in READERS}
        for _ in range(options.repeats):
            for name in READERS:
                figures = run(name, folder)
                speeds[name].append(figures["per second"])
                if name not in rows:
                    rows[name] = {"version": version(name)}
                    rows[name] |= check(name, folder, figures["numbers"], total)
                print(name, rows[name], speeds[name], flush=True)
    for name, values in speeds.items():
        rows[name]["pictures per second"] = spread(values)
    if options.save:
        what = f"{total} JPEG files of {SIDE} px, batches of {BATCH}, two readers, local disk"
        save_result("readers", what, {"libraries": rows})


if __name__ == "__main__":
    main()
