"""Publish a run on the Hugging Face Hub, with a model card."""

import dataclasses
import tempfile
from pathlib import Path

from hundredfold.data.addresses import without_key
from hundredfold.metrics.scores import INTERVAL, VIEWS, describe_test, metric_rows
from hundredfold.models.build import count_parameters
from hundredfold.runs.folder import require_finished
from hundredfold.runs.new_run import copy_model
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError, extra, first_line
from hundredfold.support.files import make_folder, save_file
from hundredfold.support.text import plural, printable

CARD = """---
library_name: hundredfold
pipeline_tag: image-classification
tags: [image-classification, hundredfold]
---

# {name}

An image classifier with {parameters:.2f} M parameters. It was trained with hundredfold on {data},
using the recipe `{recipe}` (seed {seed}, {epochs}).

| {pictures} | {views} |
|---|--:|--:|--:|--:|
{rows}

{intervals}

Flip TTA (test-time augmentation) averages the predictions of a picture and its mirror image.

The model knows {count}: {classes}. It assigns one of them to every picture, whatever the picture
shows.{foreign} Pictures are resized to {size} x {size} pixels.

```python
from huggingface_hub import snapshot_download
from hundredfold import Predictor

prediction = Predictor.load(snapshot_download("{name}"))("cat.jpg")
print(prediction.label, prediction.probability)
```
"""


FOREIGN = " `prediction.is_foreign` is true if the picture probably shows none of them."


def write_folder(run: Run, name: str, folder: Path) -> Path:
    """Write the files to publish: weights, model, metrics, configuration and model card.

    The configuration reveals no paths of this machine: only the last part of each is published.

    Args:
        run: a finished run.
        name: OWNER/NAME of the model on the Hub.
        folder: an empty folder; it is created if it does not exist.

    Raises:
        UserError: the run is unfinished, or the folder is not empty or cannot be written.
    """
    require_finished(run.path)
    if any(make_folder(folder).iterdir()):
        raise UserError(f"{folder} is not empty: name another folder.")
    config = dataclasses.replace(
        run.config(),
        data=Path(without_key(run.config().data)).name,
        weights=Path(run.config().weights).name,
        out="runs",
    )
    copy_model(run, folder, config)
    save_file(folder / "README.md", card(run, name))
    return folder


def card(run: Run, name: str) -> str:
    """Return a run's model card in Markdown."""
    config, info, metrics = run.config(), run.info(), run.metrics()
    count = metrics["test_pictures"]
    rows = metric_rows(*(metrics[view] for view in VIEWS), count=count)
    shown = [printable(name).replace("`", "'") for name in info.classes[:20]]  # it ends a code span
    classes = ", ".join(f"`{name}`" for name in shown)
    more = f" and {len(info.classes) - 20} more" if len(info.classes) > 20 else ""
    return CARD.format(
        name=name,
        parameters=count_parameters(run.model()) / 1e6,
        data=Path(without_key(config.data)).name,
        recipe=config.name,
        seed=config.seed,
        epochs=plural(config.epochs, "epoch"),
        pictures=plural(count, "test picture"),
        views=" | ".join(f"{name} | {INTERVAL}" for name in VIEWS.values()),
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows),
        intervals=describe_test(count, config.weights),
        count=plural(len(info.classes), "class"),
        classes=classes + more,
        foreign=FOREIGN if run.known_tensors() else "",
        size=info.image_size,
    )


def push(run: Run, name: str, *, private: bool = False) -> str:
    """Upload a run to the Hugging Face Hub and return its address.

    Args:
        run: a finished run.
        name: OWNER/NAME of the model; it is created if it does not exist.
        private: whether a model that is created is visible to its owner alone.

    Raises:
        UserError: the extra is not installed, the run is unfinished, or the Hub refuses the upload
            or cannot be reached.
    """
    with extra("hub", "The Hugging Face Hub needs"):
        from huggingface_hub import HfApi  # noqa: PLC0415  # an extra
    with tempfile.TemporaryDirectory() as temporary:
        folder, hub = write_folder(run, name, Path(temporary)), HfApi()
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            message = run.path.resolve().name
            commit = hub.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        except Exception as error:  # the network, the server, the name or the token
            raise UserError(
                f"The Hub did not accept {name}: {first_line(error)}. Check the network, and "
                "log in with: hf auth login"
            ) from error
    return str(commit.repo_url)
