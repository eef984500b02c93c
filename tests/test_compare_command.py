"""The command `compare`: its text, its JSON and its figure."""

import io
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from PIL import Image
from support.making import Train

from hundredfold import Epoch
from hundredfold.cli.main import main
from hundredfold.evaluation.compare import compare
from hundredfold.figures.comparison import draw_comparison
from hundredfold.figures.style import to_png, to_svg


def test_compare_command_describes_the_result(
    trained: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [trained(name="概念_ж", seed=seed, epochs=0.5) for seed in (0, 1)]
    runs += [trained(name="b", lr=0.2, seed=seed) for seed in (0, 1, 2)]
    assert main(["compare", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    contrast = compare(runs).contrasts[0]
    wins, losses, _ = contrast.mcnemar
    assert losses > wins
    line = (
        rf"Fine: b \(seed 0\) is right and 概念_ж \(seed 0\) is wrong on {losses} pictures; "
        rf"概念_ж \(seed 0\) is right and b \(seed 0\) is wrong on {wins} \(McNemar's test: p = "
    )
    assert re.search(line + r"0\.\d+\)\.\n", out)
    assert contrast.difference
    mean, error = (100 * abs(value) for value in contrast.difference)
    assert (
        f"Fine: the mean of b (3 seeds) is {mean:.2f} points above that of 概念_ж (2 seeds); "
        f"standard error {error:.2f}.\n"
    ) in out
    each = [run.metrics()["test"]["fine_top1"] for run in runs[2:]]
    assert f"{statistics.mean(each):.2%} ± {statistics.stdev(each):.2%}" in out
    assert re.search(r"\n epochs +0\.5 +1\.0 *\n", out)
    assert out.endswith("Figure  compare.png\n")
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[0] == 1800


def test_json_output_has_every_value(trained: Train, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [trained(seed=0), trained(seed=1), trained(pad=0)]
    arguments = ["compare", *map(str, runs), "--format", "json", "--out", "a b.png"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    found = compare(runs)
    assert result["figure"] == "a b.png"
    assert Path("a b.png").exists()
    assert [group["name"] for group in result["groups"]] == ["tiny with pad 2", "tiny with pad 0"]
    assert result["groups"][0]["seeds"] == [0, 1]
    assert result["groups"][0]["runs"] == [str(run) for run in runs[:2]]
    values = [run.metrics()["test"]["fine_top1"] for run in runs[:2]]
    assert result["groups"][0]["scores"]["fine_top1"] == {
        "n": 2,
        "mean": statistics.mean(values),
        "std": statistics.stdev(values),
        "values": values,
    }
    assert result["differences"] == {"pad": ["2", "0"]}
    assert result["notes"] == []
    assert [contrast["mcnemar"]["p"] for contrast in result["contrasts"]] == [
        contrast.mcnemar.p for contrast in found.contrasts
    ]


def test_equal_configurations_are_reported(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(trained()), str(trained())]) == 0
    out = capsys.readouterr().out
    assert "The configurations are the same." in out
    assert "Coarse: tiny and tiny (2) get the same pictures right (McNemar's test: p = 1)." in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "Name two or more finished runs"),
        ("nowhere nothing", "There is no run at nowhere"),
        ("a b --out figure.pdf", "--out is 'figure.pdf', but must end in .png"),
    ],
)
def test_errors_of_the_compare_command(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


def test_error_names_the_figure_that_cannot_be_written(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(trained()), str(trained()), "--out", "no/where.png"]) == 2
    assert "Cannot write no/where.png: No such file" in capsys.readouterr().err


def test_small_p_values_are_written_in_decimals() -> None:
    from hundredfold.cli.compare import _p_value

    assert _p_value(6.1e-6) == "p = 0.0000061"
    assert _p_value(0.0412) == "p = 0.041"
    assert _p_value(0.5) == "p = 0.5"
    assert _p_value(1.0) == "p = 1"
    assert _p_value(0.0) == "p < 0.000001"


def epochs(seconds: float, judged: bool = True) -> list[Epoch]:
    """Return a made-up history of three epochs."""
    shares = {"fine_top1": 0.3, "coarse_top1": 0.5} if judged else {}
    return [
        Epoch(i, i / 3, seconds / 3, 0.1, 50, 2 / i, shares, [0.1] * 50, [2 / i] * 50)
        for i in (1, 2, 3)
    ]


def points(line: Line2D) -> Any:
    """Return a line's (x, y)."""
    return line.get_xydata()


def test_figure_draws_every_group() -> None:
    histories = {f"_$g{i}$": [epochs(10 * 2**i)] for i in range(9)}
    figure = draw_comparison(histories, "coarse")
    time, schedule, loss = figure.axes
    assert time.get_xscale() == "log"
    looks = {(line.get_color(), line.get_linestyle()) for line in time.lines}
    assert len(looks) == 9
    want = [[2560 / 3, 0.5], [5120 / 3, 0.5], [2560, 0.5]]
    np.testing.assert_allclose(points(time.lines[-1]), want)
    curve = points(loss.lines[0])
    assert len(curve) == 38  # 150 steps in means of four
    np.testing.assert_allclose(curve[0], [2.5 / 150, 2])
    np.testing.assert_allclose(curve[-1], [149.5 / 150, 2 / 3])
    assert len(schedule.lines) == 9
    with Image.open(io.BytesIO(to_png(figure))) as picture:
        assert picture.size[0] == 1800


def test_figure_draws_the_mean_over_the_seeds() -> None:
    figure = draw_comparison({"a": [epochs(10), epochs(20)], "b": [epochs(30)[:2]]}, "fine")
    time = figure.axes[0]
    assert time.get_xscale() == "linear"
    assert len(time.lines) == 4
    np.testing.assert_allclose(points(time.lines[2]), [[5, 0.3], [10, 0.3], [15, 0.3]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a, 2 seeds", "b"]


def test_figure_of_runs_without_validation() -> None:
    histories = {"a": [epochs(1, judged=False)], "b": [epochs(100, judged=False)]}
    figure = draw_comparison(histories, "fine")
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["not judged"] * 2
    to_png(figure)


def test_name_in_the_figure_is_not_interpreted() -> None:
    drawn = to_svg(draw_comparison({"_$x^2$": [epochs(60)], "b": [epochs(30)]}, "fine"))
    assert "_$x^2$" in drawn
