"""Run every model forward and backward; compare the whitening stem with its definition."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hundredfold.models.architectures import MODELS, fixed_options
from hundredfold.models.build import build_model, count_parameters
from hundredfold.models.info import ModelInfo
from hundredfold.models.whitenet import WhiteNet, patch_covariance, stem_stride, whitening_filters
from hundredfold.support.errors import UserError

WIDTHS = {"resnet9": (8, 8, 16, 16), "whitenet": (8, 16, 16), "whiteresnet": (8, 16, 16)}


def build(name: Any, classes: int, widths: tuple[int, ...] = (), **flags: bool) -> nn.Module:
    """Return a new model."""
    info = ModelInfo(
        model=name,
        widths=widths,
        labels="fine",
        classes=tuple(map(str, range(classes))),
        superclasses=(),
        parents=(),
        image_size=32,
        fit="crop",
        mean=(0, 0, 0),
        std=(1, 1, 1),
        **flags,
    )
    return build_model(info)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [20, 24, 32])
@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("flags", [{}, {"batch_norm": False}, {"residual": False}])
def test_every_model_runs_forward_and_backward(
    name: str, size: int, classes: int, flags: dict[str, bool]
) -> None:
    model = build(name, classes, WIDTHS[name], **flags)
    logits = model(torch.randn(4, 3, size, size))
    assert logits.shape == (4, classes)
    F.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
    for parameter in model.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()


def resnet9_size(widths: tuple[int, ...], classes: int) -> int:
    """Count ResNet-9's weights by hand: 3x3 convolutions with bias, batch norms, a linear layer."""
    w1, w2, w3, w4 = widths
    pairs = [(3, w1), (w1, w2), (w2, w2), (w2, w2), (w2, w3), (w3, w4), (w4, w4), (w4, w4)]
    return sum(9 * i * o + 3 * o for i, o in pairs) + (w4 + 1) * classes


@pytest.mark.parametrize(("widths", "classes"), [((64, 128, 256, 512), 20), ((8, 16, 24, 32), 7)])
def test_resnet9_has_the_size_counted_by_hand(widths: tuple[int, ...], classes: int) -> None:
    assert count_parameters(build("resnet9", classes, widths)) == resnet9_size(widths, classes)


def test_the_tutorials_network_has_6_6_million_parameters() -> None:
    assert count_parameters(build("resnet9", 20)) == 6_580_500


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="four stages"):
        build("resnet9", 10, (8, 8))
    with pytest.raises(UserError, match="one to three groups"):
        build("whitenet", 10, (8, 8, 8, 8))


@pytest.mark.parametrize("name", ["whitenet", "whiteresnet"])
def test_whitenets_equal_a_composition_of_torchs_functions(name: str) -> None:
    model, deep = build(name, 5, (6, 7)).train(), name == "whiteresnet"
    images = torch.randn(4, 3, 20, 20)
    stride = 1 if deep else 2
    stem = model.state_dict()["stem.weight"]
    assert stem.shape == ((24, 3, 2, 2) if deep else (54, 3, 3, 3))
    y = x = F.relu(F.conv2d(images, stem, stride=stride, padding=stride // 2))
    for group in range(2):
        weights = [w for n, w in model.named_parameters() if f"groups.{group}.convs" in n]
        assert len(weights) == (3 if deep else 2)
        for place, weight in enumerate(weights):
            y = F.conv2d(y, weight, padding=1)
            y = F.max_pool2d(y, 2) if place == 0 else y
            mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), False, keepdim=True)
            y = (y - mean) / (variance + 1e-5).sqrt()
            y = F.silu(y + x if place == 2 else y)
            x = y if place == 0 else x
        if deep:
            names = ("0.weight", "0.bias", "2.weight", "2.bias")
            w1, b1, w2, b2 = (model.state_dict()[f"groups.{group}.excite.{n}"] for n in names)
            share = torch.sigmoid(F.silu(y.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)
            y = y * share[:, :, None, None]
    want = y.flatten(2).max(2).values @ model.state_dict()["head.weight"].T * (0.14 if deep else 1)
    torch.testing.assert_close(model(images), want)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet9", set()),
        ("whitenet", {"residual"}),
        ("whiteresnet", set()),
        ("timm:resnet18", {"batch_norm", "residual"}),
    ],
)
def test_options_that_a_model_does_not_have_are_known(name: str, options: set[str]) -> None:
    assert fixed_options(name) == options


@pytest.mark.parametrize("name", ["resnet9", "whiteresnet"])
def test_without_residuals_only_the_additions_are_missing(name: str) -> None:
    images = torch.randn(4, 3, 32, 32)
    whole, plain = build(name, 5, WIDTHS[name]), build(name, 5, WIDTHS[name], residual=False)
    plain.load_state_dict(whole.state_dict())
    shapes = [parameter.shape for parameter in plain.parameters()]
    assert shapes == [parameter.shape for parameter in whole.parameters()]
    assert not torch.allclose(whole.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("name", MODELS)
def test_without_batch_norm_pictures_do_not_affect_each_other(name: str) -> None:
    model = build(name, 5, WIDTHS[name], batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            assert module.bias is not None  # it replaces the bias of batch norm
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    model = model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def natural_images(count: int = 64) -> torch.Tensor:
    """Return smooth random pictures, whose neighbouring pixels are correlated as in photos."""
    noise = torch.randn(count, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1) + 0.1 * noise[:, :, 1:-1, 1:-1]


def test_whitening_makes_the_patch_covariance_the_identity() -> None:
    images = natural_images()
    responses = F.conv2d(images, whitening_filters(images, epsilon=0))
    flat = responses.transpose(0, 1).flatten(1).double()
    covariance = flat @ flat.T / flat.shape[1]
    torch.testing.assert_close(covariance, torch.eye(27).double(), atol=1e-4, rtol=0)


def test_epsilon_damps_directions_with_little_variance() -> None:
    images = natural_images()
    filters = whitening_filters(images, epsilon=0.05).flatten(1).double()
    variances = (filters @ patch_covariance(images, 3) @ filters.T).diagonal()
    eigenvalues = torch.linalg.eigvalsh(patch_covariance(images, 3)).flip(0)
    torch.testing.assert_close(variances, eigenvalues / (eigenvalues + 0.05), atol=1e-5, rtol=0)


def test_patch_covariance_equals_a_loop_over_patches() -> None:
    images = natural_images(2)[:, :, :9, :9]
    for side in (3, 5):
        total, count = torch.zeros(3 * side**2, 3 * side**2, dtype=torch.float64), 0
        for image in images:
            for row in range(0, 9 - side + 1, side // 2):
                for column in range(0, 9 - side + 1, side // 2):
                    patch = image[:, row : row + side, column : column + side].reshape(-1).double()
                    total += torch.outer(patch, patch)
                    count += 1
        torch.testing.assert_close(patch_covariance(images, side), total / count)


@pytest.mark.parametrize("side", [32, 48, 64, 95, 96, 128, 191, 192, 224, 256, 383])
def test_the_stride_of_the_stem_grows_with_the_pictures(side: int) -> None:
    assert 16 <= side / stem_stride(side) < 48
    model = WhiteNet(3, (8, 8, 8), side=side)
    model.initialise_from(torch.randn(3, 3, side, side))
    seen: list[torch.Size] = []
    model.groups[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    assert model(torch.randn(2, 3, side, side)).isfinite().all()
    assert 16 <= seen[0][2] <= 48 and seen[0][1] == 54


def test_the_whitening_stem_is_frozen_and_has_each_filter_and_its_negative() -> None:
    model, images = WhiteNet(10, (8, 16)), natural_images()
    model.initialise_from(images)
    positive, negative = model.stem.weight.chunk(2)
    assert positive.equal(-negative)
    assert positive.equal(whitening_filters(images))
    assert not model.stem.weight.requires_grad


def test_the_groups_of_whitenet_start_as_the_identity_on_their_input() -> None:
    model = WhiteNet(10, (60, 70))
    x = torch.randn(2, 54, 8, 8)
    conv = next(m for m in model.groups.modules() if isinstance(m, nn.Conv2d))
    torch.testing.assert_close(conv(x)[:, :54], x)
