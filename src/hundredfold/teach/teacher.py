"""Learn from an album while it grows: features, a check of the pictures, and training on demand."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hundredfold.inference.features import cached_features, feature_network
from hundredfold.inference.predict import Prediction, Predictor
from hundredfold.pictures.load import load_picture
from hundredfold.recipes import probe
from hundredfold.runs.run import Run
from hundredfold.support.device import keep_memory, pick_device, placed
from hundredfold.support.errors import UserError
from hundredfold.support.files import fingerprint, save_file, stamp_or_nothing
from hundredfold.support.jsonio import as_json, parse_object
from hundredfold.teach.album import STATE, Album, describe_unused
from hundredfold.teach.check import Check, check_pictures
from hundredfold.training.train import train

MODEL_FILE = "model.json"
"""File in the hidden folder of an album: the run that was last trained on it."""
AT_ONCE = 25
"""Number of pictures whose features are computed before the album is looked at again."""
THUMBNAIL = 64
"""Side in pixels of the pictures among which near duplicates are searched for."""
PAUSE = 1.0
"""Time in seconds after which the album is looked at again: another program may change it."""


class Known(NamedTuple):
    """What is known about a picture file."""

    stamp: tuple[int, ...]
    """Changes when the file does (`stamp_or_nothing`); empty for a broken link."""
    features: Tensor
    """(D,) float32; empty if the file cannot be read."""
    thumbnail: Tensor
    """(3, THUMBNAIL, THUMBNAIL) uint8; empty if the file cannot be read."""
    error: str = ""
    """Why the file cannot be read."""


class Checked(NamedTuple):
    """The pictures that were checked last, and what they say."""

    classes: Mapping[str, Sequence[str]]
    """Names of the picture files of each class."""
    stamps: Mapping[Path, tuple[int, ...]]
    """Of each file."""
    check: Check | None
    """None if no picture can be read."""


@dataclass(frozen=True)
class Trained:
    """A model that was trained on the album."""

    run: Run
    predictor: Predictor
    pictures: str
    """Digest of the names, sizes and times of the pictures it was trained on."""


class Teacher:
    """An album, what its pictures say, and the model that was last trained on them.

    Methods may be called from any thread. Within `learning`, features are computed and the pictures
    are checked. Training has a thread of its own.

    Args:
        album: the pictures. They must be used through `changing` only.
        out: folder in which the runs are written.
        device: as in `Config.device`.

    Raises:
        UserError: the device does not exist, or the pretrained weights are not installed.
    """

    def __init__(self, album: Album, out: str, device: str = "auto") -> None:
        self.out, self.device = out, device
        self._album, self._lock, self._changed = album, Lock(), Event()
        keep_memory()
        network, self._info = feature_network()
        self._network = placed(network, pick_device(device))
        self._known: dict[Path, Known] = {}
        self._checked = Checked({}, {}, None)
        self._trained = self._last_trained()
        self._trainer: Thread | None = None
        self._error = self._watch_error = ""
        self._stopped, self._answering = False, Lock()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Compute features and check the pictures, in a thread, as long as the block runs.

        On leaving, wait until what has begun has ended.
        """
        watcher = Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._stopped = True
            self._changed.set()
            watcher.join()
            if self._trainer:
                self._trainer.join()

    @contextmanager
    def changing(self) -> Iterator[Album]:
        """Give the album to the caller alone, and look at it again afterwards."""
        with self._lock:
            yield self._album
        self._changed.set()

    def picture(self, label: str, name: str, side: int) -> Tensor:
        """Return a picture of the album, (3, side, side) uint8.

        Raises:
            UserError: there is no such picture, or it cannot be read.
        """
        with self._lock:
            path = self._album.path(label, name)
        return load_picture(path, side)

    def predict(self, content: bytes) -> Prediction:
        """Classify the content of a picture file with the model that was trained last.

        Raises:
            UserError: there is no model yet, or the content is not a picture.
        """
        trained = self._trained
        if trained is None:
            raise UserError("There is no model yet. Train one first.")
        with self._answering:
            return trained.predictor(content)

    def begin_training(self) -> None:
        """Train on the album in a thread of its own; `state` says when it has ended.

        Raises:
            UserError: a training has not ended yet, or there are fewer than two classes with
                pictures.
        """
        with self._lock:
            classes = self._album.classes()
            if self._is_training:
                raise UserError("The model is being trained already.")
            if sum(map(bool, classes.values())) < 2:
                raise UserError("A model needs at least two classes with pictures.")
            pictures, self._error = self._digest(classes), ""
            self._trainer = Thread(target=self._train, args=(pictures,))
            self._trainer.start()

    def state(self) -> dict[str, Any]:
        """Return what the page shows, as values that JSON can hold."""
        with self._lock:
            classes, unused = self._album.contents()
            undo = self._album.changes[-1].what if self._album.changes else None
        known, (checked, stamps, check) = self._known, self._checked
        paths = [path for _, path in self._paths(classes)]
        notes = dict(zip(checked, check.notes, strict=True)) if check else {}
        return {
            "folder": str(self._album.folder),
            "classes": [
                {"name": name, "pictures": pictures, "notes": list(notes.get(name, ()))}
                for name, pictures in classes.items()
            ],
            "waiting": sum(path not in known for path in paths),
            "unusable": [known[path].error for path in paths if path in known and known[path].error]
            + describe_unused(unused),
            "is_checked": classes == checked and _stamps(known) == stamps,
            "accuracy": check and check.accuracy,
            "interval": check and check.interval,
            "judged": check.count if check else 0,
            "is_training": self._is_training,
            "error": self._error or self._watch_error,
            "model": self._describe_model(classes),
            "undo": undo,
        }

    @property
    def _is_training(self) -> bool:
        return self._trainer is not None and self._trainer.is_alive()

    def _describe_model(self, classes: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
        trained = self._trained
        if trained is None:
            return None
        return {
            "run": str(trained.run),
            "classes": list(trained.predictor.info.classes),
            "is_current": trained.pictures == self._digest(classes),
        }

    def _paths(self, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, Path]]:
        """Return the class and the path of each picture."""
        folder = self._album.folder
        return [(label, folder / label / name) for label in classes for name in classes[label]]

    def _digest(self, classes: Mapping[str, Sequence[str]]) -> str:
        """Return a digest of the names, sizes and times of the pictures of each class."""
        facts: list[object] = [list(classes)]
        for label, path in self._paths(classes):
            stamp = stamp_or_nothing(path)[:2]  # deleting and undoing change the others
            facts.append((label, path.name, stamp))
        return fingerprint(*facts).hex()

    def _watch(self) -> None:
        while not self._stopped:
            try:
                self._look()
                self._watch_error = ""
            except UserError as error:
                self._watch_error = str(error)
            except Exception:
                traceback.print_exc()
                self._watch_error = (
                    "The pictures cannot be checked. The terminal shows the details."
                )
            self._changed.wait(PAUSE)
            self._changed.clear()

    def _look(self) -> None:
        """Compute the features of new pictures; check the pictures if there are none left."""
        while not self._stopped:
            with self._lock:
                classes = self._album.classes()
            pairs = self._paths(classes)
            stamps = {path: stamp_or_nothing(path) for _, path in pairs}
            known = {p: k for p, k in self._known.items() if stamps.get(p) == k.stamp}
            missing = [path for path in stamps if path not in known][:AT_ONCE]
            self._known = known | self._computed({path: stamps[path] for path in missing})
            if missing:
                continue
            stamps = _stamps(self._known)
            if (classes, stamps) != self._checked[:2]:
                self._checked = Checked(classes, stamps, self._checked_pictures(classes))
            return

    def _computed(self, stamps: Mapping[Path, tuple[int, ...]]) -> dict[Path, Known]:
        """Return what is known about new picture files, up to AT_ONCE."""
        found, images = {}, {}
        for path, stamp in stamps.items():
            try:
                images[path] = load_picture(path, self._info.image_size)
            except UserError as error:
                found[path] = Known(stamp, torch.empty(0), torch.empty(0), str(error))
        if images:
            part = torch.stack(list(images.values()))
            rows = cached_features(self._network, [part], self._info)
            cached_features(self._network, [part.flip(3)], self._info)  # training wants them too
            small = torch.nn.functional.interpolate(part.float(), size=THUMBNAIL, mode="area")
            for path, row, thumbnail in zip(
                images, rows, small.round().to(torch.uint8), strict=True
            ):
                found[path] = Known(stamps[path], row, thumbnail)
        return found

    def _checked_pictures(self, classes: Mapping[str, Sequence[str]]) -> Check | None:
        """Return what the pictures of an album say; None if there are none."""
        names = list(classes)
        pairs = [
            (names.index(label), self._known.get(path)) for label, path in self._paths(classes)
        ]
        usable = [(label, known) for label, known in pairs if known and len(known.features)]
        if not usable:
            return None
        features = torch.stack([known.features for _, known in usable])
        thumbnails = torch.stack([known.thumbnail for _, known in usable])
        labels = torch.tensor([label for label, _ in usable])
        return check_pictures(features, thumbnails, labels, names)

    def _train(self, pictures: str) -> None:
        """Train, and use the model from then on."""
        try:
            config = probe(data=str(self._album.folder.resolve()), out=self.out, device=self.device)
            run = Run(train(config, quiet=True).path.resolve())
            self._trained = Trained(run, Predictor.load(run, self.device), pictures)
            memory = {"run": str(run), "pictures": pictures}
            save_file(self._album.folder / STATE / MODEL_FILE, as_json(memory))
        except UserError as error:
            self._error = str(error)
        except Exception:
            traceback.print_exc()
            self._error = "The training failed. The terminal says why."

    def _last_trained(self) -> Trained | None:
        """Return the model that an earlier session trained on the album, if it is still there."""
        path = self._album.folder / STATE / MODEL_FILE
        with suppress(UserError, OSError, ValueError, KeyError):
            memory = parse_object(path.read_text(), str(path))
            run = Run(str(memory["run"]))
            return Trained(run, Predictor.load(run, self.device), str(memory["pictures"]))
        return None


def _stamps(known: Mapping[Path, Known]) -> dict[Path, tuple[int, ...]]:
    return {path: found.stamp for path, found in known.items()}
