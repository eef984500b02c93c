"""Measure how well a network trained from scratch tells pictures that show none of its classes.

HUNDREDFOLD_DATA=FOLDER python benchmarks/foreign_scratch.py --seeds 3 --save

The recipe `fast` is trained on 80 classes of CIFAR-100. Foreign are the test pictures of the other
20 classes, digits, letters, textures and noise. A foreign picture passes if it scores no lower than
the lowest of the 95 % best held-out pictures.
"""

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
import tyro
from common import save_result, spread
from foreign import area
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from hundredfold import Dataset, Split, fast, load_cifar100
from hundredfold.inference.features import predict_with_features
from hundredfold.inference.known import outside_part, principal_directions
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

WHAT = (
    "fast on 80 classes of CIFAR-100; area under the ROC curve between its test pictures and "
    "foreign pictures, and share of the foreign ones that pass if 95 % of held-out pictures do"
)
CPU = torch.device("cpu")
SIDE = 32
FITTED = 10_000
"""Number of training pictures that the scores are fitted to."""
NEIGHBOUR = 10
Score = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, C) and features (N, D) to a score (N,), which is high for known pictures."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 3
    """Number of trainings, each with its own 80 classes, from seed 0."""
    classes: int = 80
    """Number of classes to train on."""
    save: bool = False
    """Write the figures to benchmarks/results/."""


def part_of(dataset: Dataset, classes: Tensor) -> Dataset:
    """Return the pictures of some classes, without superclasses."""
    number = torch.full((len(dataset.classes),), -1)
    number[classes] = torch.arange(len(classes))

    def part(split: Split) -> Split:
        kept = split.select((number[split.labels] >= 0).nonzero()[:, 0])
        return Split(kept.images, number[kept.labels])

    names = tuple(dataset.classes[i] for i in classes.tolist())
    return Dataset(dataset.source, part(dataset.train), part(dataset.test), names)


def foreign_pictures(generator: torch.Generator) -> dict[str, Tensor]:
    """Return sets of pictures (N, 3, 32, 32) uint8 that show nothing of CIFAR-100."""
    digits = torch.from_numpy(load_digits().images).float()[:, None] * (255 / 16)
    digits = interpolate(digits, size=SIDE, mode="bicubic").clamp(0, 255)
    noise = torch.randint(256, (1000, 3, SIDE, SIDE), generator=generator)
    # Noise of which the amplitude falls with the frequency, as in photographs of surfaces.
    spectrum = torch.fft.rfft2(torch.randn(1000, 3, SIDE, SIDE, generator=generator))
    rows, columns = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)
    surface = torch.fft.irfft2(
        spectrum / (rows.square() + columns.square()).sqrt().clamp_min(1 / 32)
    )
    surface = 128 + 48 * surface / surface.std((2, 3), keepdim=True)
    return {
        "digits": digits.byte().expand(-1, 3, -1, -1),
        "letters": letters(),
        "textures": surface.clamp(0, 255).byte(),
        "noise": noise.byte(),
    }


def letters() -> Tensor:
    """Return all Latin letters in the DejaVu fonts, black on white, (N, 3, 32, 32) uint8."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    pictures = []
    for path in sorted(folder.glob("DejaVuS*-*.ttf")):
        font = ImageFont.truetype(str(path), 24)
        for letter in string.ascii_letters:
            picture = Image.new("L", (SIDE, SIDE), 255)
            ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, 0, font, anchor="mm")
            pictures.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8))
    return torch.stack(pictures).view(-1, 1, SIDE, SIDE).expand(-1, 3, -1, -1)


def scores(features: Tensor, labels: Tensor, held: tuple[Tensor, Tensor]) -> Mapping[str, Score]:
    """Return the scores to compare.

    Args:
        features: (N, D) of training pictures.
        labels: (N,) their classes.
        held: logits (H, C) and features (H, D) of pictures that were held out.
    """
    mean, directions = principal_directions(features)
    centres = torch.stack([features[labels == label].mean(0) for label in labels.unique()])
    within = torch.cov((features - centres[labels]).T)
    inverse = torch.linalg.inv(
        within + 1e-4 * within.trace() / len(within) * torch.eye(len(within))
    )
    bank = normalize(features - mean)

    def neighbour(_: Tensor, features: Tensor) -> Tensor:
        near = normalize(features - mean) @ bank.T
        return near.topk(NEIGHBOUR).values[:, -1]

    def mahalanobis(_: Tensor, features: Tensor) -> Tensor:
        distances = [(((features - c) @ inverse) * (features - c)).sum(1) for c in centres]
        return -torch.stack(distances).amin(0)

    def both(logits: Tensor, features: Tensor) -> Tensor:
        outside, usual = (outside_part(f, mean, directions) for f in (features, held[1]))
        largest, common = logits.amax(1), held[0].amax(1)
        return (largest - common.mean()) / common.std() - (outside - usual.mean()) / usual.std()

    return {
        "largest probability": lambda logits, _: logits.softmax(1).amax(1),
        "largest logit": lambda logits, _: logits.amax(1),
        "energy": lambda logits, _: logits.logsumexp(1),
        "tenth neighbour": neighbour,
        "Mahalanobis distance": mahalanobis,
        "largest logit and part outside": both,
    }


def measure_seed(dataset: Dataset, classes: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the area and the share that passes, by score and set of foreign pictures."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.classes), generator=generator)
    known, others = (
        part_of(dataset, half) for half in order.split((classes, len(order) - classes))
    )
    setup = make_setup(fast(validation=0.1, seed=seed, device="cpu"), known, CPU)
    state = first_state(setup)
    for _ in train_epochs(state, setup):
        pass

    def predict(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return predict_with_features(state.model, pictures, setup.info)

    held, own = predict(setup.validation_split.images), predict(known.test.images)
    fitted = setup.train_split[:FITTED]
    compared = scores(predict(fitted.images)[1], fitted.labels, held)
    foreign = {"other classes": others.test.images, **foreign_pictures(generator)}
    found: dict[str, dict[str, float]] = {}
    for where, pictures in foreign.items():
        outputs = predict(pictures)
        for name, score in compared.items():
            least, values = score(*held).quantile(0.05), score(*outputs)
            passing = (values >= least).double().mean().item()
            found[f"{name}, against {where}"] = {
                "area": area(score(*own), values),
                "passing": passing,
            }
    return found


def main(options: Options) -> None:
    """Train and measure each seed, and print the means."""
    dataset = load_cifar100()
    found = [measure_seed(dataset, options.classes, seed) for seed in range(options.seeds)]
    rows: dict[str, Any] = {}
    for key in found[0]:
        rows[key] = {what: spread([each[key][what] for each in found]) for what in found[0][key]}
        print(f"{key:50} {rows[key]['area']['mean']:.3f} {rows[key]['passing']['mean']:.3f}")
    if options.save:
        save_result("foreign-scratch", WHAT, rows)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
