"""Load your own pictures: from a folder, an archive or a table."""

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hundredfold.data.collection import PictureCollection, read_collection
from hundredfold.data.dataset import Dataset, Split, describe_untested
from hundredfold.data.split import split_rows
from hundredfold.pictures.pixels import Fit
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.errors import UserError, first_few
from hundredfold.support.text import plural

MAX_NAMED = 50
"""Maximum number of classes without usable pictures that a sentence names."""


def load_folder(
    path: Path,
    tell: Callable[[str], None],
    *,
    size: int = 0,
    fit: Fit = "crop",
    strict: bool = False,
    cache: str = "",
) -> Dataset:
    """Load your own pictures as a dataset.

    The classes are in natural order of their names. If there is no test split, the validation split
    becomes the test split. If there is neither, a fifth of the pictures is held out (see `split`).

    Args:
        path: path as in `read_collection`.
        tell: function that shows the user a sentence about a decision that was made for them.
        size: side length in pixels; 0 to choose it by the pictures.
        fit: how a picture that is not square becomes one.
        strict: raise an error instead of leaving anything out.
        cache: most disk space for decoded pictures, as `Config.cache`.

    Raises:
        UserError: there are no pictures or too few classes, or `strict` is true and some pictures
            or classes would be left out.
    """
    collection = read_collection(path, size, fit, cache)
    for sentence in collection.listing.remarks:
        tell(sentence)
    left_out = describe_left_out(collection, path)
    if strict and left_out:
        raise UserError(
            f"{'. '.join(left_out)}. Repair or remove these files, or omit --strict to train "
            "without them."
        )
    for sentence in left_out:
        tell(f"{sentence}. This data is left out.")
    return build_dataset(collection, tell, strict=strict)


def describe_left_out(collection: PictureCollection, path: Path) -> list[str]:
    """Return sentences, without full stops, about pictures and classes that are left out."""
    sentences = list(collection.listing.left_out)
    if unusable := collection.unusable:
        sentences.append(
            f"{plural(len(unusable), 'picture')} of {path} cannot be used: "
            + first_few(f"{name} ({reason})" for name, reason in unusable)
        )
    if empty := collection.empty_classes:
        sentences.append(
            f"{plural(len(empty), 'class has', 'classes have')} no usable picture: "
            + first_few((f"{name} ({reason})" for name, reason in empty), MAX_NAMED)
        )
    return sentences


def build_dataset(
    collection: PictureCollection, tell: Callable[[str], None], *, strict: bool = False
) -> Dataset:
    """Return the dataset of a collection of pictures.

    Raises:
        UserError: there are fewer than two classes, there is no test picture, or `strict` is true
            and a split has classes that the training pictures lack.
    """
    usable = [i for i, info in enumerate(collection.infos) if not info.problem]
    rows, related = split_rows(collection, usable, tell)
    entries = collection.entries
    classes = in_natural_order(entries[i].label for i in rows["train"])
    if len(classes) < 2:
        raise UserError(
            f"{collection.path} has {plural(len(classes), 'class')} with training pictures, but "
            "at least two are needed. Put the pictures of each class into a folder with its name."
        )
    known, given = set(classes), bool(rows["test"])
    for split, chosen in rows.items():
        unknown = Counter(entries[i].label for i in chosen if entries[i].label not in known)
        if unknown:
            sentence = (
                f"The {split} pictures have classes that the training pictures lack: "
                + first_few(f"{name} ({number})" for name, number in unknown.items())
            )
            if strict:
                raise UserError(
                    f"{sentence}. Rename or remove these classes, or omit --strict to train "
                    "without their pictures."
                )
            tell(f"{sentence}. These pictures are left out.")
            rows[split] = [i for i in chosen if entries[i].label in known]
    if given and not rows["test"]:
        raise UserError(
            f"No test picture of {collection.path} has a class of the training pictures. Name the "
            "folders of the test pictures like those of the training pictures, or move the test "
            "pictures elsewhere."
        )
    if not rows["test"]:
        raise UserError(
            f"{collection.path} has no picture left for testing. At least one class needs two "
            "pictures that are not copies or near duplicates of each other."
        )
    dataset = _dataset(collection, rows, classes)
    if related.any_related:
        train, test = (
            torch.tensor([related.groups.get(i, i) for i in rows[name]])
            for name in ("train", "test")
        )
        dataset = replace(
            dataset,
            train=replace(dataset.train, groups=train),
            test=replace(dataset.test, groups=test),
        )
    counts = dataset.test.labels.bincount(minlength=len(classes)).tolist()
    if untested := describe_untested(classes, counts):
        tell(untested)
    tell(describe_dataset(dataset, collection))
    return dataset


def _dataset(
    collection: PictureCollection, rows: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> Dataset:
    """Return the given rows as a dataset of these classes, without copying pictures."""
    entries, index = collection.entries, {name: i for i, name in enumerate(classes)}
    superclass = {entries[i].label: entries[i].parent for i in rows["train"]}
    names = in_natural_order(superclass.values()) if any(superclass.values()) else []
    splits = {name: _split(collection, chosen, index) for name, chosen in rows.items() if chosen}
    return Dataset(
        source=str(collection.path),
        train=splits["train"],
        test=splits["test"],
        classes=tuple(classes),
        superclasses=tuple(names),
        parents=tuple(names.index(superclass[name]) for name in classes) if names else (),
        validation=splits.get("validation"),
        fit=collection.fit,
    )


def _split(collection: PictureCollection, rows: Sequence[int], index: Mapping[str, int]) -> Split:
    labels = torch.tensor([index[collection.entries[i].label] for i in rows])
    names = tuple(collection.entries[i].name for i in rows)
    return Split(collection.store, labels, torch.tensor(rows), names)


def describe_dataset(dataset: Dataset, collection: PictureCollection) -> str:
    """Return a few sentences about the pictures that a model will be trained on."""
    counts = dataset.train.labels.bincount(minlength=len(dataset.classes))
    fewest, most = int(counts.min()), int(counts.max())
    side = dataset.train.store.shape[-1]
    sizes = ((info.width, info.height) for info in collection.infos if not info.problem)
    width, height = (statistics.median_low(values) for values in zip(*sizes, strict=True))
    number = (f"{fewest:,} to " if fewest != most else "") + plural(most, "training picture")
    sentences = [
        f"The pictures have {width} x {height} pixels (medians). They are resized to {side} x "
        f"{side}, {collection.where}. Each class has {number}."
    ]
    if shared := count_shared(dataset, collection):
        sentences.append(
            f"{plural(shared, 'test picture is', 'test pictures are')} also among the training "
            "pictures, byte for byte."
        )
    if collection.skipped:
        sentences.append(f"{plural(len(collection.skipped), 'other file')} skipped.")
    if shared or collection.skipped or collection.unusable:
        sentences.append(f"See `hundredfold audit {shlex.quote(str(collection.path))}`.")
    return " ".join(sentences)


def count_shared(dataset: Dataset, collection: PictureCollection) -> int:
    """Return the number of test pictures whose file content equals that of a training picture."""
    pairs = zip(collection.entries, collection.infos, strict=True)
    digest = {entry.name: info.digest for entry, info in pairs}
    training = {digest[name] for name in dataset.train.names}
    return sum(digest[name] in training for name in dataset.test.names)
