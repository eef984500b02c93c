"""hundredfold: train accurate image classifiers in minutes on a plain CPU."""

import hundredfold.support.starting  # noqa: F401  # first, because the other imports take seconds

# isort: split
from hundredfold import recipes
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_cifar100, load_data
from hundredfold.data.sample import load_sample
from hundredfold.evaluation.evaluate import evaluate
from hundredfold.experiments.explore import explore
from hundredfold.inference.logits import predict_logits
from hundredfold.inference.predict import Prediction, Predictor
from hundredfold.metrics.scores import measure
from hundredfold.recipes import *  # noqa: F403
from hundredfold.report.report import write_report
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.support.errors import UnavailableError, UserError
from hundredfold.training.resume import reproduce, resume
from hundredfold.training.train import train

__version__ = "0.1.0"

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
    "evaluate",
    "explore",
    "load_cifar100",
    "load_data",
    "load_sample",
    "measure",
    "predict_logits",
    "reproduce",
    "resume",
    "train",
    "write_report",
]
__all__ += recipes.__all__
