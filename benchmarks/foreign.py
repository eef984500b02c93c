"""Measure how well `probe` tells photos that show none of its classes.

python benchmarks/foreign.py PHOTOS/clothing PHOTOS/waste PHOTOS/hand-signs --save

A model is trained on each set, and for each seed on 70 % of its classes. Foreign are the photos of
the other sets, and the photos of the classes that were left out.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import tyro
from common import save_result, spread

from hundredfold import Predictor, probe, train
from hundredfold.inference.known import FOREIGN
from hundredfold.inference.predict import Prediction, predict_many

Rows = list[tuple[Path, str, str]]
"""Path, split and class of photos."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of sets of photos with split.csv."""
    left_out: float = 0.3
    """Share of the classes of a set that are left out (0..1)."""
    seeds: int = 3
    """Number of choices of those classes, 0, 1, ..."""
    save: bool = False
    """Write the figures to benchmarks/results/."""


def read(folder: Path) -> Rows:
    """Return the photos of a set."""
    with (folder / "split.csv").open() as file:
        rows = csv.DictReader(file)
        return [(folder / row["path"], row["split"], row["class"]) for row in rows]


def fit(rows: Rows, scratch: Path) -> Predictor:
    """Return a model that was trained on photos."""
    table = scratch / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "label"])
        writer.writerows([path.resolve(), split, label] for path, split, label in rows)
    config = probe(data=str(table), fit="crop", out=str(scratch / "runs"), device="cpu")
    return Predictor.load(train(config, quiet=True))


def scores(predictor: Predictor, rows: Rows) -> torch.Tensor:
    """Return `Prediction.known` of photos."""
    found = predict_many(predictor, ((str(path), path) for path, _, _ in rows))
    answers = [answer for _, answer in found if isinstance(answer, Prediction)]
    return torch.tensor([answer.known for answer in answers if answer.known is not None])


def area(known: torch.Tensor, foreign: torch.Tensor) -> float:
    """Return the area under the ROC curve: how often a known photo scores above a foreign one."""
    above = (known[:, None] > foreign).double() + 0.5 * (known[:, None] == foreign).double()
    return above.mean().item()


def describe(known: torch.Tensor, foreign: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Return the shares of known and foreign photos that are rejected, and the areas."""
    return {
        "known rejected": round((known < FOREIGN).double().mean().item(), 4),
        "foreign rejected": spread([(f < FOREIGN).double().mean().item() for f in foreign]),
        "area": spread([area(known, f) for f in foreign]),
    }


def left_out_classes(rows: Rows, share: float, seed: int) -> set[str]:
    """Return classes to leave out."""
    classes = sorted({label for _, _, label in rows})
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed)).tolist()
    return {classes[i] for i in order[: max(1, round(share * len(classes)))]}


def main(options: Options) -> None:
    """Measure each pair of sets, and each choice of classes."""
    sets, rows = {folder.name: read(folder) for folder in options.folders}, {}
    for name, photos in sets.items():
        with TemporaryDirectory() as scratch:
            predictor = fit(photos, Path(scratch))
            known = scores(predictor, [row for row in photos if row[1] == "test"])
            others = {o: scores(predictor, sets[o]) for n, o in permutations(sets, 2) if n == name}
        for other, foreign in others.items():
            rows[f"{name}, against {other}"] = describe(known, [foreign])
        found = []
        for seed in range(options.seeds):
            out = left_out_classes(photos, options.left_out, seed)
            with TemporaryDirectory() as scratch:
                predictor = fit([row for row in photos if row[2] not in out], Path(scratch))
                kept = [row for row in photos if row[1] == "test" and row[2] not in out]
                foreign = scores(predictor, [row for row in photos if row[2] in out])
                found.append(describe(scores(predictor, kept), [foreign]))
        rows[f"{name}, against its classes left out"] = {
            "known rejected": spread([each["known rejected"] for each in found]),
            **{
                key: spread([each[key]["mean"] for each in found])
                for key in ("foreign rejected", "area")
            },
        }
        for key in [key for key in rows if key.startswith(name)]:
            print(key, rows[key], flush=True)
    if options.save:
        save_result("foreign", "shares of photos rejected, and area under the ROC curve", rows)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
