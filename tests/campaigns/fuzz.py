"""Give malformed files to every reader, and check that each is read or refused with a message.

`python -m campaigns.fuzz --inputs 1000` gives each reader that many mutations of good files.
`--guided pictures` uses atheris (pip install atheris) to search for inputs that take new paths
through the code of one reader. No reader may raise another exception, hang, or use more than 2 GiB.
"""

import argparse
import dataclasses
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

if "--guided" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["hundredfold", "PIL"]):
        import hundredfold.training.resume  # noqa: F401  # with everything that it imports

from PIL import Image
from safetensors import safe_open
from support.making import make_split
from support.stopping import Stopper

from hundredfold import Config, Dataset, Run, UserError, load_data, train
from hundredfold.evaluation.predictions import scored_predictions
from hundredfold.inference.predict import Predictor
from hundredfold.pictures.load import load_picture
from hundredfold.runs.checkpoints import METADATA_KEY, write_file
from hundredfold.runs.table import final_scores, list_runs
from hundredfold.support.jsonio import parse_object
from hundredfold.training.resume import resume

MAX_SECONDS = 20
MAX_MEMORY = 2 * 2**30
CUES = (
    b"-1", b"0", b"1e999", b"NaN", b"null", b"[]", b"{}", b'""', b"99999999999", b"true", b"\xff",
    b"\x00", b"../", b"\r\n", b'"', b"<script>", b"timm:resnet18", b"16384", b"\xf0\x9f\x90\xb1",
)  # fmt: skip
"""Inputs that often reveal missing checks."""
Reader = Callable[[bytes], None]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return the content of a file with one to four changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = rng.choice(CUES)
            case 3:
                data[at : at + rng.randint(1, 4)] = rng.choice(CUES)
            case 4:
                data[at : at + length] = rng.randbytes(length)
            case 5:
                data[at : at + 8] = struct.pack("<Q", rng.choice((0, 2**31, 2**63, 2**64 - 1)))
    return bytes(data)


def changed_value(content: bytes, rng: random.Random) -> bytes:
    """Return a JSON object in which one value is replaced, removed or added."""
    values = json.loads(content)
    key = rng.choice(list(values))
    strange: list[object] = [
        None,
        -1,
        0,
        1e308,
        2**70,
        "",
        "x" * 1000,
        [],
        [[]],
        {},
        True,
        ["a", 1],
        [1e9] * 3,
    ]
    if rng.random() < 0.1:
        del values[key]
    elif rng.random() < 0.1:
        values["<b>"] = 1
    else:
        values[key] = rng.choice(strange)
    return json.dumps(values).encode()


class Readers:
    """All readers of files from untrusted sources, with good files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = Dataset("fuzz", make_split(48, 4), make_split(8, 4, 1), tuple("abcd"))
        config = Config(
            name="fuzz", widths=(4, 8), epochs=2, batch_size=16, device="cpu", out=str(folder)
        )
        self.run = train(config, self.data, quiet=True)
        self.half = self.stopped_run()
        checkpoint = self.half.newest_checkpoint()
        assert checkpoint
        self.checkpoint = checkpoint
        self.names = ("config.json", "environment.json", "model.json", "metrics.json")

    def files(self) -> dict[str, tuple[list[bytes], Reader]]:
        """Return good contents and their reader, by kind of file."""
        path, readers = self.run.path, {}
        for name in (*self.names, "history.jsonl", "weights.safetensors", "test_logits.npz"):
            content = (path / name).read_bytes()
            readers[name] = ([content], self.run_reader(name, content))
        pictures = [self.picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
        readers["pictures"] = (pictures, lambda content: void(load_picture(content, 32)))
        readers["zip"] = ([self.zip()], self.data_reader("x.zip"))
        readers["tar"] = ([self.tar()], self.data_reader("x.tar.gz"))
        for index in range(8):
            (folder := self.folder / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(self.picture("PNG", index))
        lines = [f"photos/{'ab'[i % 2]}/{i}.png,{'ab'[i % 2]},{i // 4}" for i in range(8)]
        table = "\n".join(["path,label,superclass", *lines]).encode()
        readers["table"] = ([table], self.data_reader("x.csv"))
        readers["checkpoint"] = ([self.checkpoint_text()], self.resume_with)
        return readers

    def run_reader(self, name: str, good: bytes) -> Reader:
        """Return a reader of a run in which one file has another content."""

        def read(content: bytes) -> None:
            path = self.run.path / name
            path.write_bytes(content)
            try:
                for use in (
                    lambda: Predictor.load(self.run)(self.data.test.images[:2]),
                    lambda: scored_predictions(self.run),
                    lambda: final_scores(self.run),
                    self.run.history,
                    lambda: list_runs(self.folder),
                    self.run.config,
                ):
                    with suppress(UserError):
                        use()
            finally:
                path.write_bytes(good)

        return read

    def data_reader(self, name: str) -> Reader:
        """Return a reader of data in a file with this name."""

        def read(content: bytes) -> None:
            (self.folder / name).write_bytes(content)
            load_data(str(self.folder / name), lambda _: None)

        return read

    def stopped_run(self) -> Run:
        """Return a run that was stopped after two steps."""
        config = dataclasses.replace(self.run.config(), out=str(self.folder / "stopped"))
        with suppress(KeyboardInterrupt):
            train(config, self.data, display=Stopper(2))
        return Run(next(Path(config.out).iterdir()))

    def checkpoint_text(self) -> bytes:
        """Return the JSON text of the checkpoint."""
        path = max((self.half.path / "checkpoints").glob("*.safetensors"))
        with safe_open(path, "pt") as file:
            text: str = file.metadata()[METADATA_KEY]
        return text.encode()

    def resume_with(self, content: bytes) -> None:
        """Resume from a checkpoint with this JSON text and a right checksum."""
        values = parse_object(content.decode(errors="replace"), "checkpoint")
        copy = Run(self.folder / "copy")
        shutil.rmtree(copy.path, ignore_errors=True)
        shutil.copytree(self.half.path, copy.path)
        shutil.rmtree(copy.path / "checkpoints")
        text = json.dumps(values | {"steps_done": 2})
        write_file(copy.path / "checkpoints", 2, self.checkpoint.tensors, text)
        resume(copy, self.data, quiet=True)

    def picture(self, kind: str, seed: int = 0) -> bytes:
        """Return the content of a picture file in a format."""
        pixels = self.data.train.images[seed].permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(buffer := io.BytesIO(), kind)
        return buffer.getvalue()

    def zip(self) -> bytes:
        """Return a .zip of a folder with two classes."""
        with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for index in range(8):
                archive.writestr(f"p/{'ab'[index % 2]}/{index}.png", self.picture("PNG", index))
        return buffer.getvalue()

    def tar(self) -> bytes:
        """Return a compressed .tar of the same folder."""
        with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as archive:
            for index in range(8):
                content = self.picture("PNG", index)
                info = tarfile.TarInfo(f"p/{'ab'[index % 2]}/{index}.png")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def void(_: object) -> None:
    """Ignore a result."""


def guarded(read: Reader, content: bytes) -> str:
    """Read a content; return whether it was read or refused.

    Raises:
        Exception: Any exception but a UserError, such as a TimeoutError if the reader hangs.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not finished after {MAX_SECONDS} s")

    signal.signal(signal.SIGPROF, ring)  # processor time, as the machine may be busy
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        read(content)
    except UserError:
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def campaign(inputs: int, folder: Path, seed: int = 0) -> dict[str, Counter[str]]:
    """Give each reader a number of mutations; return the outcomes by reader.

    Raises:
        RuntimeError: A reader raised anything but a UserError. The input is saved to a file.
    """
    rng, counts = random.Random(seed), {}
    for name, (seeds, read) in Readers(folder).files().items():
        counts[name] = Counter[str]()
        for index in range(inputs):
            good = rng.choice(seeds)
            structured = good.startswith(b"{") and name != "history.jsonl" and index % 2
            content = changed_value(good, rng) if structured else mutated(good, rng)
            try:
                counts[name][guarded(read, content)] += 1
            except Exception as error:
                path = Path(tempfile.gettempdir()) / f"fuzz-{name}"
                path.write_bytes(content)
                raise RuntimeError(f"{name}, input {index}, saved to {path}") from error
    return counts


def guided(name: str, inputs: int, folder: Path) -> None:
    """Let atheris search for inputs of one reader that take new paths through the code."""
    seeds, read = Readers(folder).files()[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, content in enumerate(seeds):
        (corpus / str(index)).write_bytes(content)
    arguments = [sys.argv[0], str(corpus), f"-runs={inputs}", "-max_len=100000", "-rss_limit_mb=0"]
    atheris.Setup(arguments, lambda content: void(guarded(read, content)))
    atheris.Fuzz()


def main() -> None:
    """Run the campaign and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--guided", default="")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow warns of damaged files that it reads all the same
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        started, folder = time.perf_counter(), Path(name)
        if options.guided:
            guided(options.guided, options.inputs, folder)
            return
        counts = campaign(options.inputs, folder, options.seed)
    print(json.dumps(counts, indent=2))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    total = sum(sum(count.values()) for count in counts.values())
    print(f"{total} inputs, {time.perf_counter() - started:.0f} s, peak {memory / 2**30:.2f} GiB")
    if memory > MAX_MEMORY:
        sys.exit("The readers used more than 2 GiB of memory.")


if __name__ == "__main__":
    main()
