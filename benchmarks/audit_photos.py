"""Change labels of photos at random, and measure which of them the audit finds.

python benchmarks/audit_photos.py PHOTOS --networks --save

PHOTOS is a folder of sets; each set has a file split.csv with columns path, split and class. Labels
are changed among the training pictures, and all pictures are audited. A suspect counts as right
only if its label was changed, so labels that were wrong before lower the precision.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from common import code_digests, save_result, spread

from hundredfold.audit.audit import audit
from hundredfold.audit.pictures import AuditedPictures, load_audited_pictures

WHAT = "labels of training photos changed at random, and how many of them the audit finds"
SOURCES = (
    "audit/features.py",
    "audit/labels.py",
    "audit/near_photos.py",
    "data/near.py",
    "metrics/folds.py",
    "models/logistic.py",
)
"""Files of the package that decide the figures of the features."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the sets of photos."""
    sets: tuple[str, ...] = ("waste", "clothing")
    """Names of the sets."""
    share: float = 0.03
    """Share of the training labels that are changed."""
    seeds: int = 2
    """Number of seeds, 0, 1, ..."""
    networks: bool = False
    """Measure the audit by small networks as well, which takes minutes."""
    save: bool = False
    """Write the result to benchmarks/results."""


def change_labels(
    pictures: AuditedPictures, share: float, seed: int
) -> tuple[AuditedPictures, set[int]]:
    """Return the pictures with a share of the training labels changed, and which were changed."""
    training = torch.tensor([i for i, split in enumerate(pictures.splits) if split == "train"])
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(training), generator=rng)
    chosen = training[order[: round(share * len(training))]]
    classes, labels = len(pictures.classes), pictures.labels.clone()
    labels[chosen] += torch.randint(1, classes, (len(chosen),), generator=rng)
    return dataclasses.replace(pictures, labels=labels % classes), set(chosen.tolist())


def check(pictures: AuditedPictures, changed: set[int]) -> dict[str, float]:
    """Return how well the changed labels are found among the training pictures, and the time."""
    started = time.perf_counter()
    found = audit(pictures, near=False)
    seconds = time.perf_counter() - started
    suspects = {issue.picture for issue in found.label_issues}
    suspects = {i for i in suspects if pictures.splits[i] == "train"}
    hits = len(suspects & changed)
    figures: dict[str, float] = {"suspects": len(suspects), "found": hits, "seconds": seconds}
    if changed:
        figures |= {"recall": hits / len(changed), "precision": hits / max(1, len(suspects))}
    return figures


def measure(pictures: AuditedPictures, options: Options) -> dict[str, Any]:
    """Return the figures of all seeds, and those of the labels as they are."""
    noisy = [change_labels(pictures, options.share, seed) for seed in range(options.seeds)]
    rows = [check(*pair) for pair in noisy]
    unchanged = check(pictures, set())
    return {
        "changed": len(noisy[0][1]),
        **{key: spread([row[key] for row in rows]) for key in rows[0]},
        "suspects if no label is changed": unchanged["suspects"],
    }


def main(options: Options) -> None:
    """Measure, print and save after each set."""
    figures: dict[str, Any] = {"sources": code_digests(SOURCES)}
    for name in options.sets:
        pictures = load_audited_pictures(str(options.folder / name / "split.csv"))
        found = audit(pictures)
        figures[name] = {
            "pictures": len(pictures),
            "copies": len(found.copies),
            "near duplicates": len(found.near),
        }
        ways = {"features": pictures}
        if options.networks:  # pictures without files are not photos
            ways["networks"] = dataclasses.replace(pictures, paths=(), facts=())
        for way, source in ways.items():
            figures[name][way] = measure(source, options)
            print(name, way, figures[name][way], flush=True)
            if options.save:
                save_result("audit-photos", WHAT, figures)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
