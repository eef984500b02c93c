"""A run for the Hugging Face Hub: a folder with its model and its card, and the way there."""

import dataclasses
import shlex
import tempfile
from pathlib import Path

from hundredfold.metrics.scores import metric_rows
from hundredfold.models.build import count_parameters
from hundredfold.runs.new_run import copy_model
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError, extra, first_line
from hundredfold.support.files import make_folder, save_file
from hundredfold.support.text import plural, printable

HEAD = """---
library_name: hundredfold
pipeline_tag: image-classification
tags: [image-classification, hundredfold]
---
"""
USE = """
```python
from huggingface_hub import snapshot_download
from hundredfold import Predictor

answer = Predictor.load(snapshot_download("{name}"))("cat.jpg")
print(answer.label, answer.probability)
```
"""


def write_folder(run: Run, name: str, folder: Path) -> Path:
    """Write what the Hub is to have: weights, model.json, figures, configuration, card.

    Nothing in it says where data or weights lay: paths are cut to their names.

    Args:
        run: a finished run.
        name: OWNER/NAME that it will have.
        folder: empty; made if it is not there.

    Raises:
        UserError: the run is not finished, or the folder is not empty or cannot be written.
    """
    if not run.finished:
        raise UserError(f"{run} is not finished: hundredfold resume {shlex.quote(str(run))}")
    if any(make_folder(folder).iterdir()):
        raise UserError(f"{folder} is not empty: name another folder.")
    config = dataclasses.replace(
        run.config(),
        data=Path(run.config().data).name,
        weights=Path(run.config().weights).name,
        out="runs",
    )
    copy_model(run, folder, config)
    save_file(folder / "README.md", card(run, name))
    return folder


def card(run: Run, name: str) -> str:
    """Return a run's model card, Markdown."""
    config, info, metrics = run.config(), run.info(), run.metrics()
    views = {"test": "single view", "test_flip": "flip test-time augmentation"}
    lines = [
        f"| {plural(metrics['test_pictures'], 'test picture')} | {' | '.join(views.values())} |"
    ]
    lines.append("|---|---|---|")
    rows = metric_rows(*(metrics[view] for view in views))
    lines += [f"| {' | '.join(row)} |" for row in rows]
    classes = ", ".join(f"`{printable(name)}`" for name in info.classes[:20])
    more = f" and {len(info.classes) - 20} more" if len(info.classes) > 20 else ""
    about = (
        f"{count_parameters(run.model()) / 1e6:.2f} M weights, trained with "
        f"hundredfold by the recipe `{config.name}` "
        f"(seed {config.seed}, {plural(config.epochs, 'epoch')}) on {Path(config.data).name}."
    )
    limits = (
        f"It knows {plural(len(info.classes), 'class')} and no others: {classes}{more}. Of "
        f"whatever it is shown it names one of them. Pictures are brought to {info.image_size} x "
        f"{info.image_size} pixels."
    )
    table = "\n".join(lines)
    return f"{HEAD}\n# {name}\n\n{about}\n\n{table}\n\n{limits}\n{USE.format(name=name)}"


def push(run: Run, name: str, *, private: bool = False) -> str:
    """Put a run on the Hugging Face Hub; return its address.

    Args:
        run: a finished run.
        name: OWNER/NAME; made where it is not there.
        private: whether only its owner sees it, where it is made.

    Raises:
        UserError: the extra is not installed, the run is not finished, or the Hub refuses or
            cannot be reached.
    """
    with extra("hub", "The Hugging Face Hub needs"):
        from huggingface_hub import HfApi  # noqa: PLC0415  # an extra
    with tempfile.TemporaryDirectory() as temporary:
        folder, hub = write_folder(run, name, Path(temporary)), HfApi()
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            done = hub.upload_folder(repo_id=name, folder_path=folder, commit_message=run.path.name)
        except Exception as error:  # of the network, the server, the name, the token
            raise UserError(
                f"The Hub does not take {name}: {first_line(error)}. Is there a network, and are "
                "you logged in (hf auth login)?"
            ) from error
    return str(done.repo_url)
