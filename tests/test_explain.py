"""Explanations against captum and loops; explaining does not change the model."""

from pathlib import Path

import pytest
import torch
from captum.attr import Occlusion
from PIL import Image
from torch import Tensor

from hundredfold import Config, Dataset, Predictor, Run, tutorial
from hundredfold.cli.main import main
from hundredfold.evaluation.explain import find_similar, occlusion_map
from hundredfold.inference.features import predict_features
from hundredfold.inference.logits import predict_logits
from hundredfold.training.train import train


def test_occlusion_map_equals_captum(run: Run, tiny: Dataset) -> None:
    predictor = Predictor.load(run)
    info, image = predictor.info, tiny.test.images[5]

    def scores(pixels: Tensor) -> Tensor:
        logits = predict_logits(predictor.model, pixels.to(torch.uint8), info)
        return (logits / info.temperature).log_softmax(1)

    grey = (255 * torch.tensor(info.mean)).round().view(1, 3, 1, 1)
    want = Occlusion(scores).attribute(
        image[None].float(),
        sliding_window_shapes=(3, 8, 8),
        strides=(3, 2, 2),
        baselines=grey.expand(1, 3, 32, 32),
        target=2,
    )[0]
    found = occlusion_map(predictor, image, 2)
    assert found.shape == (32, 32)
    for channel in want:
        torch.testing.assert_close(found, channel.float(), atol=1e-5, rtol=1e-4)
    assert found.sum().item() == pytest.approx(want[0].sum().item(), abs=1e-2)


def test_occlusion_map_of_a_grey_picture_is_zero(run: Run) -> None:
    predictor = Predictor.load(run)
    grey = (255 * torch.tensor(predictor.info.mean)).round().to(torch.uint8)
    image = grey.view(3, 1, 1).repeat(1, 32, 32)
    assert occlusion_map(predictor, image, 0).abs().max() < 1e-5


def test_explaining_does_not_change_the_model(run: Run, tiny: Dataset) -> None:
    predictor = Predictor.load(run)
    images = tiny.test.images
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    logits = predictor.logits(list(images))
    occlusion_map(predictor, images[0], 1)
    find_similar(predictor, images[0], tiny.train, 3)
    assert not predictor.model.training
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(predictor.logits(list(images)), logits)


def test_features_are_the_inputs_of_the_last_layer(tiny: Dataset, run: Run) -> None:
    model, info, images = run.model(), run.info(), tiny.test.images
    features = predict_features(model, images, info)
    weight = model.get_parameter("head.weight").detach()
    torch.testing.assert_close(features @ weight.T, predict_logits(model, images, info))


def test_features_of_the_tutorial_network(tiny: Dataset, tmp_path: Path) -> None:
    config = tutorial(epochs=0.2, widths=(4, 4, 8, 8), device="cpu", out=str(tmp_path))
    run = train(config, tiny, quiet=True)
    assert predict_features(run.model(), tiny.test.images, run.info()).shape == (24, 8)


def test_similar_pictures_equal_those_of_a_loop(run: Run, tiny: Dataset) -> None:
    predictor = Predictor.load(run)
    image = tiny.train.images[40]
    found = find_similar(predictor, image, tiny.train, 5)
    features = predict_features(predictor.model, tiny.train.images, predictor.info)
    cosines = [torch.cosine_similarity(features[40], features[i], dim=0).item() for i in range(96)]
    order = sorted(range(96), key=lambda i: -cosines[i])
    assert found.index[0] == 40
    assert found.similarity.tolist() == pytest.approx([cosines[i] for i in order[:5]], abs=1e-5)
    assert len(find_similar(predictor, image, tiny.train, 1000).index) == 96


def test_explain_command_draws_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(Config(data="sample", epochs=0.1, widths=(8,), device="cpu"), quiet=True)
    Image.new("RGB", (50, 70), "green").save("a leaf.png")
    label = run.info().classes[int(run.test_logits()["labels"][3])]
    assert main(["explain", str(run), "--test", "3", "--like", "5"]) == 0
    assert f"(label: {label})" in capsys.readouterr().out
    assert main(["explain", str(run), "a leaf.png", "--like", "0", "--target", "beaver"]) == 0
    figures = sorted((run.path / "figures").glob("explain-*.png"))
    assert [figure.name[:14] for figure in figures] == ["explain-a-leaf", "explain-test-3"]
    for path in figures:
        with Image.open(path) as figure:
            assert figure.width > 1000
    assert main(["explain", str(run), "--test", "3", "--like", "-1"]) == 2
    assert main(["explain", str(run), "a leaf.png", "--target", "beever"]) == 2
    assert "Did you mean beaver?" in " ".join(capsys.readouterr().err.split())
    assert main(["explain", str(run)]) == 2
    assert "Name one picture" in capsys.readouterr().err
