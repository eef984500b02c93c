"""The configuration of a training run: one flat frozen dataclass, written once.

The command line derives its flags and their help from it, the run directory keeps it as JSON.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from hundredfold.models.architectures import MODELS, MOST_CHANNELS, MOST_SIDE, TIMM, is_model
from hundredfold.support.errors import UserError


class FlexibleFloat(float):
    """A recipe's number for CIFAR-100, which training adapts to the number of pictures.

    A plain number, from a flag, a keyword or a file, is used unchanged.
    """


class FlexibleInt(int):
    """A recipe's whole number for CIFAR-100, which training adapts as well."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run, but for the machine and the versions.

    Raises:
        UserError: a value is out of range, or two values contradict each other.
    """

    name: str = "custom"
    """What the run's folder name begins with; a recipe puts its own name here."""

    # Data
    data: str = "auto"
    """auto | cifar100 | sample | kaggle:OWNER/NAME | path to a folder with a folder of pictures for
    each class (maybe below train, val and test), to a .zip or .tar of that, to a table with columns
    path and label (.csv, .tsv, .parquet), or to cifar-100-python (folder or .tar.gz). auto takes
    CIFAR-100 where it can be had, else the small sample that comes with hundredfold."""
    size: int = 0
    """Side in pixels (32..224) that pictures of your own are brought to; 0 to choose by them.
    Pictures of CIFAR-100 have 32."""
    strict: bool = False
    """Refuse pictures of your own where some would be left out: damaged ones, unknown classes."""
    labels: Literal["fine", "coarse"] = "fine"
    """Which labels the model learns: the classes, or only the superclasses above them."""
    validation: float = 0.05
    """Share of the training pictures held out to watch progress (0..0.5), the same for each class;
    0 trains on everything."""
    validate_on: Literal["validation", "test"] = "validation"
    """Pictures that each epoch is judged on. `test` repeats the tutorial; never choose by it."""

    # Augmentation
    pad: int = 2
    """Pixels of reflected border before the random crop back to size, of pictures of 32 x 32, and
    in proportion of larger ones; 0 for no crop."""
    flip: Literal["none", "random", "alternate"] = "alternate"
    """Horizontal flips: none, a coin each time, or a coin once and then every other epoch."""
    balance: Literal["none", "loss", "sampling"] = "none"
    """Against unequal classes: none, each class weighing the same in the loss, or each being drawn
    equally often."""

    # Model
    model: str = "whitenet"
    """resnet9: the tutorial's network. whitenet: frozen whitening stem, groups of two convolutions.
    whiteresnet: at twice the resolution, with groups of three, squeeze-and-excitation and a
    residual connection in each. timm:NAME: a
    model of the timm library (pip install 'hundredfold[timm]')."""
    weights: str = ""
    """What a timm model begins with: a file of its weights, or `hub` for timm's own; empty for
    random ones."""
    freeze: float = 0.0
    """Share of the run in which only a timm model's head learns (0..1)."""
    widths: tuple[int, ...] = ()
    """Channels of each stage (resnet9) or group (whitenet); empty for the model's own."""
    batch_norm: bool = True
    """Batch normalisation after each convolution; without it each channel has a bias instead."""
    residual: bool = True
    """The residual connections of resnet9 and whiteresnet."""

    # Optimisation
    epochs: float = 3.4
    """Passes over the training pictures; 0.5 ends halfway through the first."""
    budget: str = ""
    """Time for everything once the data is loaded, such as 90s, 5min or 1h; in place of `epochs`.
    The schedule then follows the clock, so no two runs are the same to the bit."""
    batch_size: int = 512
    """Pictures a step."""
    optimizer: Literal["sgd", "adam", "muon"] = "muon"
    """sgd has Nesterov momentum; muon orthogonalises the steps of the convolutions, and is sgd for
    all other weights."""
    lr: float = 0.15
    """Peak learning rate, for the mean loss of a batch."""
    muon_lr: float = 0.2
    """Peak learning rate of muon for the convolutions, whose norms it holds."""
    bias_lr: float = 1.0
    """How many times --lr is the learning rate of muon for biases."""
    momentum: float = 0.9
    """SGD's momentum (0..1). Adam's first beta is 0.9, or follows the one-cycle schedule."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    lookahead: float = 0.0
    """Averages the weights along the way: every 5 steps, slow weights keep this share a step (0..1)
    of themselves at the end of the run, less before, and the others start again from them. 0 for
    none."""
    clip_value: float = 0.0
    """Each gradient entry is clipped to ±this; 0 for no clipping."""
    schedule: Literal["one_cycle", "triangle"] = "triangle"
    """Learning rate by step: cosine one-cycle, or straight up and straight down."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises (0..1)."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes (0..1)."""
    sizes: tuple[int, ...] = ()
    """Side of the training pictures in pixels over equal parts of the run, small to large, where
    the last is their full size; else in proportion. Empty for full size throughout."""

    # Machine
    seed: int = 0
    """Decides the split, the first weights, the order and the augmentation."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:1 | mps. auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA GPUs that have it, else float32."""
    compile: bool = False
    """Have torch.compile fuse the kernels of a step on a GPU: a minute first, then faster steps."""
    out: str = "runs"
    """Folder in which the run gets a folder of its own."""
    checkpoint: str = "1min"
    """How often to write what going on after an interruption needs: a time such as 90s or 5min, or
    steps, such as 100steps."""

    def __post_init__(self) -> None:
        for name, ok, wanted in _checks(self):
            if not ok:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)!r}, but must be {wanted}.")


def _checks(c: Config) -> list[tuple[str, bool, str]]:
    """Return (field, whether its value can work, what it must be) for every field that can fail."""
    timm = c.model.startswith(TIMM)
    return [
        (
            "name",
            re.fullmatch(r"[\w-]{1,60}", c.name) is not None,
            "1 to 60 letters, digits, - or _",
        ),
        ("size", c.size == 0 or 32 <= c.size <= MOST_SIDE, f"0, or 32 to {MOST_SIDE} pixels"),
        ("validation", 0 <= c.validation <= 0.5, "between 0 and 0.5"),
        (
            "validate_on",
            c.validate_on == "validation" or c.validation == 0,
            "`validation` unless --validation is 0: held-out pictures would go unused",
        ),
        ("pad", 0 <= c.pad <= 16, "between 0 and 16 pixels"),
        ("model", is_model(c.model), f"{', '.join(MODELS)} or {TIMM}NAME"),
        ("weights", timm or not c.weights, f"empty unless --model is {TIMM}NAME"),
        ("widths", not (timm and c.widths), f"empty where --model is {TIMM}NAME"),
        ("batch_norm", c.batch_norm or not timm, f"True where --model is {TIMM}NAME"),
        ("residual", c.residual or not timm, f"True where --model is {TIMM}NAME"),
        ("freeze", timm or not c.freeze, f"0 unless --model is {TIMM}NAME"),
        ("freeze", 0 <= c.freeze < 1, "at least 0 and below 1"),
        (
            "widths",
            all(0 < w <= MOST_CHANNELS for w in c.widths),
            f"numbers of channels, 1 to {MOST_CHANNELS}",
        ),
        ("epochs", 0 < c.epochs < math.inf, "above 0"),
        ("budget", not c.budget or parse_duration(c.budget) > 0, "a time such as 90s, 5min or 1h"),
        ("batch_size", c.batch_size >= 2, "at least 2 (batch normalisation needs two pictures)"),
        ("lr", 0 < c.lr < math.inf, "above 0"),
        ("muon_lr", 0 < c.muon_lr < math.inf, "above 0"),
        ("bias_lr", 0 < c.bias_lr < math.inf, "above 0"),
        ("momentum", 0 <= c.momentum < 1, "at least 0 and below 1"),
        ("weight_decay", 0 <= c.weight_decay < math.inf, "at least 0"),
        ("lookahead", 0 <= c.lookahead < 1, "at least 0 and below 1"),
        ("clip_value", 0 <= c.clip_value < math.inf, "at least 0"),
        ("warmup", 0 < c.warmup < 1, "between 0 and 1"),
        ("label_smoothing", 0 <= c.label_smoothing < 1, "at least 0 and below 1"),
        ("sizes", list(c.sizes) == sorted(c.sizes), "from small to large"),
        ("sizes", all(s >= 16 for s in c.sizes), "at least 16 pixels each"),
        ("checkpoint", _is_interval(c.checkpoint), "a time such as 90s or 5min, or 100steps"),
        ("seed", 0 <= c.seed < 2**31, "between 0 and 2147483647"),
    ]


def parse_interval(text: str) -> tuple[float, float]:
    """Return (seconds, steps) of a time or a number of steps: the other one is infinite."""
    if steps := re.fullmatch(r"(\d+) *steps?", text):
        return math.inf, float(steps[1])
    return parse_duration(text), math.inf


def _is_interval(text: str) -> bool:
    return min(parse_interval(text)) > 0


_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = rf"(?:{_NUMBER} *h)? *(?:{_NUMBER} *(?:min|m))? *(?:{_NUMBER} *s)?"


def parse_duration(text: str) -> float:
    """Return the seconds in a time such as 90, 90s, 5min, 1.5h or 1h30min; 0 where it is none."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        text += "s"
    found = re.fullmatch(_DURATION, text, re.ASCII)
    parts = found.groups(default="0") if found else ("0", "0", "0")
    seconds = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    return seconds if math.isfinite(seconds) else 0.0
