"""A campaign of damage: files of finished runs are cut, flipped, lost; no answer may be another.

`python -m campaigns.damage` damages each file of a finished run in each way (cut at several
lengths, emptied, one of 50 bits flipped, a digit changed, removed, a folder in its place), calls
each command that reads runs, and compares. A command may refuse the run in words, or find it
wrong. What it answers must be what it answers of the whole run, to the letter.
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
from hundredfold.runs.run import CURVES
from hundredfold.support.environment import describe

Damage = Callable[[Path, random.Random], None]
Answer = tuple[object, ...]
RUN, OTHER, PICTURE, OUT = Path("runs/run"), Path("other/run"), Path("picture.png"), Path("out")
REFUSED = (1, 2)
"""Exit codes: found wrong, wrong use."""


def cut(share: float) -> Damage:
    """Return what leaves only so much of a file."""

    def damage(path: Path, _: random.Random) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return damage


def flip(path: Path, rng: random.Random) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def change_digit(path: Path, rng: random.Random) -> None:
    """Change a decimal digit, of a text somewhere in the file."""
    content = bytearray(path.read_bytes())
    places = [at for at, byte in enumerate(content) if chr(byte).isdecimal()]
    at = rng.choice(places)
    content[at] = ord(rng.choice([d for d in "0123456789" if ord(d) != content[at]]))
    path.write_bytes(content)


def remove(path: Path, _: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def put_folder(path: Path, _: random.Random) -> None:
    """Put a folder in a file's place."""
    path.unlink()
    path.mkdir()


def all_ways(bits: int) -> list[tuple[str, Damage]]:
    """Return all kinds of damage, by name, with so many flipped bits."""
    cuts = [("cut", cut(share)) for share in (0.01, 0.5, 0.9, 0.999)]
    others = [("digit changed", change_digit), ("removed", remove), ("a folder", put_folder)]
    return [*cuts, ("emptied", cut(0)), *[("bit flipped", flip)] * bits, *others]


def load_app() -> Answer:
    """Do what the app does with a run before it serves."""
    predictor = Predictor.load(RUN)
    served = make_served_model("run", predictor, optional_data(Run(RUN), "", "examples"))
    explained = served.explain(PICTURE.read_bytes())
    return explained.prediction, explained.heat.tolist(), served.features.tolist()


def load_library() -> Answer:
    """Predict by the library."""
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
    """Yield what a command left, with its content."""
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if found.is_file() and found.name != CURVES:  # which training has drawn
            yield str(found), found.read_bytes()


def ask(command: str) -> Answer | None:
    """Call a command; return all that it answers, or None where it refuses the run in words.

    Raises:
        AssertionError: it ended otherwise, or refused without a word.
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
    files = [each for name in WRITTEN for each in written(RUN / name)] if command != "runs" else []
    return code, out.getvalue(), files, list(written(OUT))


def said_in_list(answer: Answer | None) -> bool:
    """Return whether the list of runs says of the run that it is damaged."""
    rows = json.loads(str(answer[1])) if answer else []
    return len(rows) == 1 and rows[0]["state"] == "damaged" and bool(rows[0]["reason"])


def fresh(whole: Path) -> None:
    """Put the whole run in the place of the damaged one."""
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.copytree(whole, RUN)


def meet(command: str, path: Path, want: Answer | None) -> str:
    """Call a command on a damaged run; return how it ended.

    Raises:
        AssertionError: it answers what it does not answer of the whole run.
    """
    before = {name: content for name, content in written(RUN) if "figures" not in name}
    found = ask(command)
    if found is None:
        outcome = "refused"
    elif found == want:
        outcome = "the same"
    else:
        assert command == "runs" and said_in_list(found), f"{command}: another answer ({path})"
        outcome = "named as damaged"
    after = dict(written(RUN))
    assert all(after.get(name) == content for name, content in before.items()), "it was written to"
    return outcome


def campaign(
    kinds: Sequence[tuple[str, Damage]], commands: Sequence[str], seed: int = 0
) -> Counter[str]:
    """Damage each file in each of these ways, and call each command; return how they ended.

    The current folder takes the runs.

    Raises:
        AssertionError: a command answered otherwise, or ended in anything but words.
    """
    torch.set_num_threads(1)
    rng, counts = random.Random(seed), Counter[str]()
    sample = load_sample()
    config = fast(
        data="sample", widths=(8, 8), epochs=0.3, validation=0.02, out="made", device="cpu"
    )
    whole = train(config, sample, quiet=True).path
    shutil.copytree(whole, OTHER)
    Image.fromarray(sample.test.images[0].permute(1, 2, 0).numpy()).save(PICTURE)
    wanted: dict[str, Answer | None] = {}
    for command in commands:
        fresh(whole)
        wanted[command] = ask(command)
        fresh(whole)
        assert ask(command) == wanted[command], f"{command} does not repeat itself"
        assert (wanted[command] is None) == (command == "resume")
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    for name in names:
        for kind, damage in kinds:
            state = rng.getstate()
            for command in commands:
                fresh(whole)
                rng.setstate(state)  # each command meets the same damage
                damage(RUN / name, rng)
                counts[meet(command, Path(name), wanted[command])] += 1
                counts[f"{name}, {kind}"] += 1
    return counts


def main() -> None:
    """Run the campaign and print what was counted."""
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
    found = {"n": sum(ends.values()), "ends": ends, "commands": options.commands, "damage": counts}
    print(json.dumps(found, indent=2))
    if save:
        what = "damage: 0 tracebacks, 0 answers that differ, or there would be no result"
        machine = describe(torch.device("cpu"), load_sample().digest())
        save.write_text(json.dumps({"what": what, **found, "machine": machine}, indent=2) + "\n")
    seconds = time.perf_counter() - started
    print(f"{found['n']} cases: 0 tracebacks, 0 other answers; {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
