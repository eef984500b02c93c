"""Pictures that the model enlarges, such as those of CIFAR-100 for pretrained features."""

import dataclasses

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from support.making import Notes, make_tiny

from hundredfold import Dataset, Predictor, Run, Split, UserError, evaluate, finetune, train
from hundredfold.export.export import export
from hundredfold.models.info import ModelInfo
from hundredfold.training.batches import batches
from hundredfold.training.resume import reproduce
from hundredfold.training.setup import make_setup

CPU = torch.device("cpu")
SIDE, SIZE = 32, 64


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Notes]:
    """A fine-tuned run on pictures of 32 pixels that the model sees at 64, and its display."""
    out = str(tmp_path_factory.mktemp("runs"))
    config = finetune(
        size=SIZE, epochs=1.0, batch_size=24, lr=1e-4, validation=0.2, device="cpu", out=out
    )
    display = Notes()
    return train(config, make_tiny(), display=display), display


def test_the_model_enlarges_pictures_as_torch_does(
    enlarged: tuple[Run, Notes], tiny: Dataset
) -> None:
    run, display = enlarged
    info = run.info()
    assert (info.image_size, info.side) == (SIDE, SIZE)
    assert "6 fine classes, enlarged from 32 to 64 px" in display.lines[0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))
    large = F.interpolate(tiny.test.images.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
    with torch.inference_mode():
        logits = run.model()((large / 255 - mean) / std)
    torch.testing.assert_close(run.test_logits()["logits"], logits, atol=1e-4, rtol=1e-4)


def test_training_cuts_its_crops_at_the_enlarged_size(tiny: Dataset) -> None:
    config = finetune(size=SIZE, epochs=1.0, batch_size=24, validation=0.2, device="cpu")
    setup = make_setup(config, tiny, CPU)
    images, _ = next(batches(setup, 0))
    assert images.shape == (24, 3, SIZE, SIZE)
    assert setup.sizes == (SIZE,)


def test_evaluation_prediction_repetition_and_export_agree(
    enlarged: tuple[Run, Notes], tiny: Dataset
) -> None:
    run, _ = enlarged
    assert evaluate(run, tiny)["test"] == run.metrics()["test"]
    assert all(part.difference == "" for part in reproduce(run, tiny))
    logits = Predictor.load(run).logits(list(tiny.test.images))
    torch.testing.assert_close(logits, run.test_logits()["logits"], atol=1e-5, rtol=0)
    result = export(run, "onnx", tiny)
    session = ort.InferenceSession(str(result.path))
    (pictures,) = session.get_inputs()
    assert pictures.shape[1:] == [SIDE, SIDE, 3]
    pixels = tiny.test.images.permute(0, 2, 3, 1).numpy()
    (exported,) = session.run(None, {pictures.name: pixels})
    expected = (logits / run.info().temperature).softmax(1).numpy()
    np.testing.assert_allclose(exported, expected, atol=1e-5)


def test_a_size_below_that_of_the_pictures_is_refused(tiny: Dataset) -> None:
    with pytest.raises(UserError, match="--size is 32, but the pictures have 48 pixels a side"):
        make_setup(finetune(size=32), dataclasses.replace(tiny, train=large(tiny.train)), CPU)


def large(split: Split) -> Split:
    """Return a split whose pictures have 48 pixels a side."""
    return Split(F.interpolate(split.images, (48, 48)), split.labels)


def test_an_input_size_below_that_of_the_pictures_is_refused(
    enlarged: tuple[Run, Notes],
) -> None:
    values = vars(enlarged[0].info()) | {"input_size": 16}
    with pytest.raises(UserError, match="input size of 32 to"):
        ModelInfo(**values)
