"""hundredfold: train accurate image classifiers in minutes on a plain CPU."""

import hundredfold.starting  # noqa: F401  # first of all: the rest takes seconds

# isort: split
from hundredfold.config import Config
from hundredfold.data import Dataset, Split, load_cifar100, load_data, load_sample
from hundredfold.epoch import Epoch
from hundredfold.errors import UnavailableError, UserError
from hundredfold.evaluate import evaluate
from hundredfold.explore import explore
from hundredfold.inference import predict_logits
from hundredfold.metrics import measure
from hundredfold.predict import Prediction, Predictor
from hundredfold.recipes import (
    best,
    fast,
    finetune,
    gpu,
    medium,
    quick,
    strong,
    tutorial,
    tutorial_400,
)
from hundredfold.report import write_report
from hundredfold.resume import reproduce, resume
from hundredfold.run import Run
from hundredfold.train import train

__all__ = [
    "Config",
    "Dataset",
    "Epoch",
    "Prediction",
    "Predictor",
    "Run",
    "Split",
    "UnavailableError",
    "UserError",
    "best",
    "evaluate",
    "explore",
    "fast",
    "finetune",
    "gpu",
    "load_cifar100",
    "load_data",
    "load_sample",
    "measure",
    "medium",
    "predict_logits",
    "quick",
    "reproduce",
    "resume",
    "strong",
    "train",
    "tutorial",
    "tutorial_400",
    "write_report",
]
