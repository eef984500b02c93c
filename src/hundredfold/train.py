"""Train a classifier: from a configuration to a finished run directory."""

import dataclasses
import time
from typing import Any

import torch
from torch import nn

from hundredfold.budget import plan
from hundredfold.calibration import fit_temperature
from hundredfold.config import Config
from hundredfold.data import Dataset, Split, load_data
from hundredfold.device import pick_device
from hundredfold.display import Display
from hundredfold.environment import describe, device_name
from hundredfold.evaluate import measure_model
from hundredfold.figures import draw_curves, to_png
from hundredfold.job import Job, State, first_state, make_job
from hundredfold.loop import epochs
from hundredfold.models import count_parameters
from hundredfold.run import CURVES, Run, new_run


def train(
    config: Config,
    dataset: Dataset | None = None,
    *,
    quiet: bool = False,
    started: float | None = None,
) -> Run:
    """Train a classifier and write its run directory.

    Args:
        config: what to do; see `recipes` for ready ones.
        dataset: the pictures; None loads what `config.data` names.
        quiet: print nothing.
        started: reading of time.perf_counter from which the budget and the run's seconds count;
            None for the moment at which the data is loaded.

    Returns:
        The finished run. The test split is read once, at the end (and after each epoch where
        `config.validate_on` says so).

    Raises:
        UserError: the configuration does not fit the data or the machine, or a file cannot be
            read or written.
        KeyboardInterrupt: interrupted; the finished epochs are in the run directory.
    """
    display, device = Display(quiet), pick_device(config.device)
    dataset = dataset or load_data(
        config.data, display.note, size=config.size, strict=config.strict
    )
    digest = dataset.digest()
    dataset = dataset.with_labels(config.labels)
    config = dataclasses.replace(config, data=dataset.source)
    job, clock = make_job(config, dataset, device), None
    with torch.random.fork_rng([device] if device.type == "cuda" else []), display:
        started = started or time.perf_counter()
        if config.budget:
            job, clock = plan(job, len(dataset.test), started)
        config, state = job.config, first_state(job)
        run = new_run(config)
        run.start(config, job.info, describe(device, digest))
        display.start(run, config, _header(job, state.model))
        try:
            for epoch in epochs(state, job, display, clock):
                run.save_epoch(state.to_resume())
                display.epoch(epoch)
        except KeyboardInterrupt:
            display.note(f"{len(run.history)} finished epochs are kept in {run}.")
            raise
        metrics = _finish(run, state, job, dataset.test, started)
    display.summary(run, metrics)
    return run


def _header(job: Job, model: nn.Module) -> list[str]:
    """Return what is about to be trained on what, in lines."""
    config = job.config
    judged = f", {len(job.judged):,} {config.validate_on}" if len(job.judged) else ""
    about = f"{config.budget}: about " if config.budget else ""
    where = device_name(job.device)
    if job.device.type == "cpu":
        where += f", {torch.get_num_threads()} threads"
    return [
        f"{config.data}: {len(job.training):,} training{judged} pictures, "
        f"{len(job.info.classes)} {config.labels} classes",
        f"{config.model}: {count_parameters(model) / 1e6:.2f} M parameters, seed {config.seed}, "
        f"{about}{config.epochs:.3g} epochs, {job.steps:,} steps of {config.batch_size}",
        where,
    ]


def _finish(run: Run, state: State, job: Job, test: Split, started: float) -> dict[str, Any]:
    """Read the test split, write the final metrics and the curves; return the metrics."""
    test_started, info = time.perf_counter(), job.info
    if state.judged_logits is not None and job.config.validate_on == "validation":
        temperature = fit_temperature(state.judged_logits, job.judged.labels)
        info = dataclasses.replace(info, temperature=temperature)
    metrics, tensors = measure_model(state.model, test, info)
    now = time.perf_counter()
    train_seconds = sum(epoch.seconds for epoch in state.history)
    metrics |= {
        "validated_on": job.config.validate_on if len(job.judged) else None,
        "seconds": now - started,
        "train_seconds": train_seconds,
        "validation_seconds": sum(epoch.validation_seconds for epoch in state.history),
        "test_seconds": now - test_started,
        "images_per_second": sum(epoch.pictures for epoch in state.history) / train_seconds,
    }
    run.finish(info, metrics, tensors)
    curves = draw_curves(state.history, job.config.labels, job.config.validate_on)
    run.figure(CURVES, to_png(curves))
    return metrics
