"""Make a bundled model from a run on CIFAR-100.

python tools/make_weights.py runs/strong-... strong

The weights are rounded to seven bits. The metrics and the model card describe the rounded weights.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hundredfold
from hundredfold import Config, Run, evaluate
from hundredfold.models.build import count_parameters
from hundredfold.recipes import RECIPES
from hundredfold.runs.bundled import PACKED_FILE, pack_weights, unpack_weights
from hundredfold.runs.folder import WEIGHTS_FILE
from hundredfold.runs.new_run import copy_model

COPIED = ("hundredfold", "torch", "numpy", "python", "processor", "cores", "threads", "data_sha256")
"""Keys of the run's environment that the bundled model records."""
RESOLVED = ("fit", "balance", "precision")
"""Fields that a run decides if the recipe leaves them open."""
CARD = """# `{name}`: a classifier of CIFAR-100's 100 classes

{parameters:.2f} M weights, rounded to seven bits ({size:.1f} MB). Trained with
`hundredfold train {command}` ({minutes:.0f} min on {cores} cores of an
{processor}, torch {torch}), then rounded by
`python tools/make_weights.py`.

| CIFAR-100's test set, 10,000 pictures | single view | flip TTA |
|---|---|---|
| fine (100 classes) | {test[fine_top1]:.2%} | {flip[fine_top1]:.2%} |
| fine, top 5 | {test[fine_top5]:.2%} | {flip[fine_top5]:.2%} |
| coarse (20 superclasses) | {test[coarse_top1]:.2%} | {flip[coarse_top1]:.2%} |
| calibration error | {test[ece]:.2%} | {flip[ece]:.2%} |

These are the figures of one training, measured with the rounded weights. `hundredfold evaluate
{name}` measures them again. Flip TTA (test-time augmentation) averages the predictions of a picture
and its mirror image.

- **Training data**: CIFAR-100 (Krizhevsky, 2009). {training:,} training pictures of 32 x 32;
  {held:,} others were held out to watch progress and to calibrate the probabilities.
- **Intended use**: trying the tool, teaching, a starting point for your own work.
- **Limits**: the model knows the hundred classes and no others. It names one of them for every
  picture, and its probabilities are meaningful only for pictures like those of CIFAR-100. Each
  picture is reduced to 32 x 32 pixels, from the middle of its longer side, so small details are
  lost.
- **Not intended for**: decisions about people, or any other decisions that matter. Five classes are
  called man, woman, boy, girl and baby, and what the model has learned about them comes from 2,500
  small pictures of the early web.
"""


def main() -> None:
    """Write the bundled model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    run = Run(options.run)
    folder = Path(hundredfold.__file__).parent / "weights" / options.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed = pack_weights(run.weights())
    config = dataclasses.replace(run.config(), data="cifar100", out="runs")
    environment = {key: run.environment()[key] for key in COPIED}
    bundled = copy_model(run, folder, config, unpack_weights(packed), environment)
    metrics = run.metrics() | evaluate(bundled)
    parameters = count_parameters(bundled.model())
    (folder / PACKED_FILE).write_bytes(packed)
    (folder / WEIGHTS_FILE).unlink()
    bundled.save_metrics(metrics)
    (folder / "README.md").write_text(card(options.name, bundled, parameters, metrics))
    print((folder / "README.md").read_text())
    print("before rounding:", run.metrics()["test"])


def flags(config: Config) -> Iterator[str]:
    """Yield the command line flags that turn the recipe into a configuration."""
    recipe = RECIPES[config.name](data=config.data, out=config.out)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(recipe, field.name) and field.name not in RESOLVED:
            values = value if isinstance(value, tuple) else (value,)
            yield " ".join(
                (
                    "--" + field.name.replace("_", "-"),
                    *(f"{v:g}" if isinstance(v, float) else str(v) for v in values),
                )
            )


def card(name: str, run: Run, parameters: int, metrics: dict[str, Any]) -> str:
    """Return the model card."""
    environment, config = run.environment(), run.config()
    return CARD.format(
        name=name,
        parameters=parameters / 1e6,
        size=(run.path / PACKED_FILE).stat().st_size / 1e6,
        command=" ".join((config.name, *flags(config))),
        minutes=metrics["seconds"] / 60,
        test=metrics["test"],
        flip=metrics["test_flip"],
        training=round(50_000 * (1 - config.validation)),
        held=round(50_000 * config.validation),
        **{key: environment[key] for key in ("cores", "processor", "torch")},
    )


if __name__ == "__main__":
    main()
