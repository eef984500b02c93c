"""Ablations: which parts are left out, and that no variant is trained twice."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.making import unfinish

from hundredfold import Config, Dataset, UserError, fast, strong, train, tutorial
from hundredfold.cli.main import main
from hundredfold.experiments.ablate import (
    AblationResult,
    VariantSummary,
    ablate,
    summarize,
    variants,
)
from hundredfold.experiments.tune import search_space, tune
from hundredfold.runs.run import Run


def test_only_parts_that_the_recipe_has_are_left_out() -> None:
    assert [*variants(tutorial())] == [
        "",
        "batch norm",
        "augmentation",
        "residuals",
        "weight decay",
        "gradient clipping",
    ]
    full = ["", "batch norm", "augmentation", "weight decay", "label smoothing"]
    assert [*variants(fast())] == full
    assert [*variants(strong())] == [*full[:3], "residuals", *full[3:], "lookahead"]


def test_every_variant_is_judged_on_validation_pictures() -> None:
    for recipe in (tutorial(), fast(validation=0.0), fast(validation=0.2)):
        for config in variants(recipe).values():
            assert config.validate_on == "validation"
            assert config.validation == (recipe.validation or 0.05)


def test_a_variant_differs_only_in_its_part() -> None:
    full, *parts = variants(tutorial()).values()
    differences = [
        {
            field.name
            for field in dataclasses.fields(Config)
            if getattr(full, field.name) != getattr(part, field.name)
        }
        - {"name"}
        for part in parts
    ]
    assert differences == [
        {"batch_norm"},
        {"pad", "flip"},
        {"residual"},
        {"weight_decay"},
        {"clip_value"},
    ]


def test_results_are_those_of_the_runs_and_no_variant_is_trained_twice(
    tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, epochs=1, label_smoothing=0.1)
    lines: list[str] = []
    first = list(ablate(config, tiny, 2, lines.append))
    assert [(o.without, o.seed) for o in first] == [
        (part, seed) for seed in (0, 1) for part in variants(config)
    ]
    assert not any("already" in line for line in lines)
    for result in first:
        run = Run(result.run)
        assert result.validation == run.history()[-1].validation
        assert result.gap == result.training["fine_top1"] - result.validation["fine_top1"]
    lost = first[3].run
    unfinish(Run(lost))
    lines.clear()
    again = list(ablate(config, tiny, 2, lines.append))
    assert sum("already" in line for line in lines) == len(first) - 1
    assert [o.training for o in again] == [o.training for o in first]
    assert again[3].run != lost


def test_training_accuracy_is_measured_without_augmentation(
    tiny: Dataset, tiny_config: Config
) -> None:
    (result,) = list(ablate(tiny_config, tiny, 1, lambda _: None))[:1]
    run = Run(result.run)
    from hundredfold.data.dataset import hold_out
    from hundredfold.inference.logits import predict_logits

    seen, _ = hold_out(tiny.train, tiny_config.validation, 0)
    right = predict_logits(run.model(), seen.images, run.info()).argmax(1) == seen.labels
    assert result.training["fine_top1"] == pytest.approx(right.double().mean().item())


def test_a_variant_that_diverges_is_a_result(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, optimizer="sgd", lr=1e30, epochs=1)
    results = list(ablate(config, tiny, 1, lambda _: None))
    failed = [result for result in results if result.failure]
    assert failed
    assert all("no longer finite" in result.failure for result in failed)
    assert all(result.gap is None for result in failed)


def test_a_summary_has_the_accuracies_of_the_seeds_that_trained() -> None:
    results = [
        AblationResult("", 0, Path(), {"fine_top1": 0.9}, {"fine_top1": 0.6}),
        AblationResult("batch norm", 0, Path(), {}, {}, "diverged"),
        AblationResult("", 1, Path(), {"fine_top1": 0.8}, {"fine_top1": 0.7}),
        AblationResult("batch norm", 1, Path(), {"fine_top1": 0.5}, {"fine_top1": 0.4}),
    ]
    assert summarize(results, "fine_top1") == [
        VariantSummary("", 2, (0.9, 0.8), (0.6, 0.7)),
        VariantSummary("batch norm", 2, (0.5,), (0.4,)),
    ]


def test_the_balance_is_decided_by_the_labels_that_are_learned(
    tiny: Dataset, tiny_config: Config
) -> None:
    kept = tiny.train.labels != 0
    kept[tiny.train.labels.tolist().index(0)] = True
    uneven = dataclasses.replace(tiny, train=tiny.train.select(kept.nonzero()[:, 0]))
    assert uneven.train.labels.bincount().tolist() == [1, 16, 16, 16, 16, 16]
    config = dataclasses.replace(tiny_config, labels="coarse", epochs=0.5)
    found = next(ablate(config, uneven, 1, lambda _: None, quiet=True))
    assert Run(found.run).config().balance == "none"
    assert train(config, uneven, quiet=True).config().balance == "none"


def test_other_errors_than_divergence_are_raised(tiny: Dataset, tiny_config: Config) -> None:
    for changes in ({"device": "abacus"}, {"budget": "10s"}):
        config = dataclasses.replace(tiny_config, **changes)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"abacus|budget"):
            list(ablate(config, tiny, 1, lambda _: None))


def test_too_few_validation_pictures_are_refused_at_once(
    tiny: Dataset, tiny_config: Config
) -> None:
    few = dataclasses.replace(tiny, train=tiny.train[torch.arange(48)])  # eight of each class
    config = dataclasses.replace(tiny_config, validation=0.05)
    for search in (
        lambda: list(ablate(config, few, 1, lambda _: None)),
        lambda: tune(config, few, search_space(config, ()), 1, "sqlite:///t.db"),
    ):
        with pytest.raises(UserError, match=r"With --validation 0.05, no picture can be held out"):
            search()
    assert not Path(config.out).exists()


def test_damaged_runs_and_runs_on_other_data_are_not_reused(
    tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, epochs=1)
    first = list(ablate(config, tiny, 1, lambda _: None))
    (first[0].run / "config.json").write_text("{")
    other = dataclasses.replace(tiny, train=tiny.train[torch.arange(90)])
    lines: list[str] = []
    list(ablate(config, other, 1, lines.append))
    assert not any("already" in line for line in lines)


@pytest.mark.long
def test_the_command_writes_a_table_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    flags = ["--data", "sample", "--epochs", "0.2", "--out", "study", "--device", "cpu"]
    assert main(["ablate", "quick", *flags]) == 0
    out = capsys.readouterr().out
    for name in (
        "full recipe",
        "without batch norm",
        "without augmentation",
        "top-1 fine, in %",
        "against full recipe",
    ):
        assert name in out
    with Image.open(tmp_path / "study" / "ablation.png") as figure:
        assert figure.width > 1000
    rows = json.loads((tmp_path / "study" / "ablation.json").read_text())
    assert [row["without"] for row in rows][:2] == ["", "batch norm"]
    assert main(["ablate", "quick", "--seeds", "0"]) == 2
    assert main(["ablate", "quik"]) == 2
    assert "Did you mean quick?" in capsys.readouterr().err
