"""Damage the files of a finished run, and check that no command gives a wrong answer.

`python -m campaigns.damage` damages each file of a finished run in several ways: cut at several
lengths, emptied, one of 50 bits flipped, a digit changed, removed, and replaced by a folder. It
then calls each command that reads runs. A command may refuse the damaged run with a message, or
report that it is wrong. Any answer must be identical to the answer for the intact run.
"""

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from PIL import Image

from hundredfold import Predictor, Run, UserError, train
from hundredfold.app.served_model import make_served_model
from hundredfold.cli.main import main as hundredfold
from hundredfold.cli.optional_data import optional_data
from hundredfold.data.sample import load_sample
from hundredfold.recipes import fast
from hundredfold.runs.folder import CURVES
from hundredfold.support.environment import describe_environment

Damage = Callable[[Path, random.Random], None]
Answer = tuple[object, ...]
RUN, OTHER, PICTURE, OUT = Path("runs/run"), Path("other/run"), Path("picture.png"), Path("out")
REFUSED = (1, 2)
"""Exit codes for a failed check and for a user error."""


def cut(share: float) -> Damage:
    """Return a function that keeps only the given share of a file."""

    def damage(path: Path, _: random.Random) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return damage


def flip(path: Path, rng: random.Random) -> None:
    """Flip a random bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def change_digit(path: Path, rng: random.Random) -> None:
    """Change a random decimal digit."""
    content = bytearray(path.read_bytes())
    places = [at for at, byte in enumerate(content) if chr(byte).isdecimal()]
    at = rng.choice(places)
    content[at] = ord(rng.choice([d for d in "0123456789" if ord(d) != content[at]]))
    path.write_bytes(content)


def remove(path: Path, _: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def put_folder(path: Path, _: random.Random) -> None:
    """Replace a file by a folder."""
    path.unlink()
    path.mkdir()


def all_ways(bits: int) -> list[tuple[str, Damage]]:
    """Return all kinds of damage with their names; flip a bit `bits` times."""
    cuts = [("cut", cut(share)) for share in (0.01, 0.5, 0.9, 0.999)]
    others = [("digit changed", change_digit), ("removed", remove), ("a folder", put_folder)]
    return [*cuts, ("emptied", cut(0)), *[("bit flipped", flip)] * bits, *others]


def load_app() -> Answer:
    """Load a run as the app does before it starts to serve."""
    predictor = Predictor.load(RUN)
    served = make_served_model("run", predictor, optional_data(Run(RUN), "", "examples"))
    explained = served.explain(PICTURE.read_bytes())
    return explained.prediction, explained.heat.tolist(), served.features.tolist()


def load_library() -> Answer:
    """Predict with the library."""
    return (Predictor.load(RUN)(PICTURE),)


LIBRARY: dict[str, Callable[[], Answer]] = {"app": load_app, "Predictor.load": load_library}
COMMANDS: dict[str, Sequence[str]] = {
    "predict": ("predict", str(RUN), str(PICTURE), "--format", "json"),
    "evaluate": ("evaluate", str(RUN)),
    "report": ("report", str(RUN)),
    "explain": ("explain", str(RUN), str(PICTURE), "--like", "2"),
    "compare": ("compare", str(RUN), str(OTHER), "--format", "json", "--out", f"{OUT}/c.png"),
    "runs": ("runs", "runs", "--format", "json"),
    "resume": ("resume", str(RUN)),
    "push": ("push", str(RUN), "me/run", "--folder", f"{OUT}/push"),
    "reproduce": ("reproduce", str(RUN)),
    "export": ("export", str(RUN), "--to", "torch"),
}
WRITTEN = ("report.html", "figures", "export/model.pt2.json")


def written(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files that a command wrote."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.name != CURVES:  # drawn during training
            yield str(file), file.read_bytes()


def call(command: str) -> Answer | None:
    """Call a command; return its whole output, or None if it refuses the run with a message.

    Raises:
        AssertionError: The command ended in another way, or refused the run without a message.
    """
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if command in LIBRARY:
                return LIBRARY[command]()
            code = hundredfold(COMMANDS[command])
        except UserError as error:
            assert str(error)
            return None
    if code in REFUSED:
        assert "error:" in err.getvalue() or code == 1, err.getvalue()
        assert "Traceback" not in err.getvalue()
        return None
    assert code == 0
    files = [file for name in WRITTEN for file in written(RUN / name)] if command != "runs" else []
    return code, out.getvalue(), files, list(written(OUT))


def listed_as_damaged(answer: Answer | None) -> bool:
    """Return whether the list of runs reports the run as damaged."""
    rows = json.loads(str(answer[1])) if answer else []
    return len(rows) == 1 and rows[0]["state"] == "damaged" and bool(rows[0]["reason"])


def restore(intact: Path) -> None:
    """Replace the damaged run by the intact one."""
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.copytree(intact, RUN)


def check(command: str, path: Path, want: Answer | None) -> str:
    """Call a command on a damaged run; return how it ended.

    Raises:
        AssertionError: The answer differs from that for the intact run.
    """
    before = {name: content for name, content in written(RUN) if "figures" not in name}
    answer = call(command)
    if answer is None:
        outcome = "refused"
    elif answer == want:
        outcome = "the same"
    else:
        assert command == "runs" and listed_as_damaged(answer), f"{command}: wrong answer ({path})"
        outcome = "named as damaged"
    after = dict(written(RUN))
    assert all(after.get(name) == content for name, content in before.items()), "the run changed"
    return outcome


def campaign(
    kinds: Sequence[tuple[str, Damage]], commands: Sequence[str], seed: int = 0
) -> Counter[str]:
    """Damage each file in each way, and call each command; return how often each outcome occurred.

    The runs are written to the current folder.

    Raises:
        AssertionError: A command gave a wrong answer, or ended without a message.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    sample = load_sample()
    config = fast(
        data="sample", widths=(8, 8), epochs=0.3, validation=0.02, out="made", device="cpu"
    )
    intact = train(config, sample, quiet=True).path
    shutil.copytree(intact, OTHER)
    Image.fromarray(sample.test.images[0].permute(1, 2, 0).numpy()).save(PICTURE)
    wanted: dict[str, Answer | None] = {}
    for command in commands:
        restore(intact)
        wanted[command] = call(command)
        restore(intact)
        assert call(command) == wanted[command], f"{command} does not repeat its answer"
        assert (wanted[command] is None) == (command == "resume")
    names = sorted(str(path.relative_to(intact)) for path in intact.rglob("*") if path.is_file())
    for name in names:
        for kind, damage in kinds:
            state = rng.getstate()
            for command in commands:
                restore(intact)
                rng.setstate(state)  # the same damage for each command
                damage(RUN / name, rng)
                counts[check(command, Path(name), wanted[command])] += 1
                counts[f"{name}, {kind}"] += 1
    return counts


def main() -> None:
    """Run the campaign and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, default=50)
    parser.add_argument("--commands", nargs="*", default=[*LIBRARY, *COMMANDS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    started, save = time.perf_counter(), options.save and options.save.resolve()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        counts = campaign(all_ways(options.bits), options.commands, options.seed)
        os.chdir("/")
    ends = {end: counts.pop(end, 0) for end in ("refused", "named as damaged", "the same")}
    result = {"n": sum(ends.values()), "ends": ends, "commands": options.commands, "damage": counts}
    print(json.dumps(result, indent=2))
    if save:
        what = "damage: 0 tracebacks and 0 wrong answers, else there would be no result"
        machine = describe_environment(torch.device("cpu"), load_sample().digest())
        save.write_text(json.dumps({"what": what, **result, "machine": machine}, indent=2) + "\n")
    seconds = time.perf_counter() - started
    print(f"{result['n']} cases: 0 tracebacks, 0 wrong answers; {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
