"""The head of a pretrained network sees the features of several stages."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.stages import stage_features
from test_installed import info_of, pixels

from hundredfold import UserError
from hundredfold.inference.features import last_linear
from hundredfold.models.build import build_model, load_model
from hundredfold.models.levels import mean_of_quarters
from hundredfold.models.timm import freeze_layers, layer_numbers


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (7, 7), (14, 14)])
def test_means_of_quarters_are_those_of_adaptive_pooling(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0))
    want = F.adaptive_avg_pool2d(maps, 2).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(mean_of_quarters(maps), want)


@pytest.mark.parametrize("size", [0, 2])
@torch.no_grad()
def test_the_head_sees_the_features_that_timm_computes(size: int) -> None:
    name = f"tf_efficientnet_lite{size}"
    model = build_model(info_of(name, batch_norm=False, levels=True), "installed").eval()
    body: Any = build_model(info_of(name), "installed").eval()  # timm's model as it is
    features = stage_features(body, pixels())
    head = last_linear(model)
    assert head.weight.shape == (3, features.shape[1])
    want = features @ head.weight.T + head.bias
    torch.testing.assert_close(model(pixels()), want, atol=1e-3, rtol=1e-4)


def test_layers_are_numbered_and_frozen_as_in_the_model_without_stages() -> None:
    plain = build_model(info_of(batch_norm=False))
    model = build_model(info_of(batch_norm=False, levels=True))
    want = {name.removeprefix("body."): number for name, number in layer_numbers(model).items()}
    assert want == layer_numbers(plain)
    for some in (plain, model):
        freeze_layers(some, 0.33)
    trained, expected = (
        {name for name, weight in some.named_parameters() if weight.requires_grad}
        for some in (model, plain)
    )
    assert {name.removeprefix("body.") for name in trained} == expected
    assert "classifier.weight" in expected and "conv_stem.weight" not in expected


@torch.no_grad()
def test_a_model_with_stages_is_loaded_again() -> None:
    info = info_of(batch_norm=False, levels=True)
    model = build_model(info, "installed").eval()
    again = load_model(info, model.state_dict()).eval()
    assert again(pixels()).equal(model(pixels()))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_model(dataclasses.replace(info, levels=False), model.state_dict())


def test_only_the_installed_models_have_stages() -> None:
    with pytest.raises(UserError, match="cannot classify by the features of several stages"):
        build_model(info_of("resnet18", levels=True))
