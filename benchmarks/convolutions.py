"""Time each convolution of a recipe's network, forward and backward, computed in different ways.

The ways are torch's own convolution, and Winograd's filtering in torch and in compiled code. On a
CPU with AMX they are also torch's own convolution and one product of the unfolded map in bfloat16.

python benchmarks/convolutions.py --recipes fast strong tutorial --save
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from common import save_result, spread
from torch import Tensor, nn

from hundredfold.models import winograd_compiled
from hundredfold.models.architectures import MODELS
from hundredfold.models.unfolded import UnfoldedConv3x3
from hundredfold.models.winograd import Conv3x3, best_tile
from hundredfold.models.winograd_compiled import CompiledWinograd
from hundredfold.models.winograd_torch import TorchWinograd
from hundredfold.recipes import RECIPES
from hundredfold.support.device import has_matrix_units, keep_memory

Convolve = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipes: tuple[str, ...] = ("fast", "strong", "tutorial")
    """Names of the recipes."""
    rounds: int = 5
    """Number of measured passes of each convolution, after one that is not measured."""
    save: bool = False
    """Write the result to benchmarks/results."""


def shapes(name: str, size: int) -> list[tuple[int, int, int]]:
    """Return (channels, filters, side) of each 3x3 convolution in a recipe's network at a size."""
    config = RECIPES[name]()
    found: list[tuple[int, int, int]] = []
    model = MODELS[config.model](100, **({"widths": config.widths} if config.widths else {}))

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Conv3x3)
        found.append((layer.in_channels, layer.out_channels, given[0].shape[2]))

    for layer in model.modules():
        if isinstance(layer, Conv3x3):
            layer.register_forward_pre_hook(note)
    model.eval()(torch.zeros(1, 3, size, size))
    return found


def passes(convolve: Convolve, x: Tensor, w: Tensor, n: int) -> list[float]:
    """Return the times of n passes forward and backward, in milliseconds."""
    times = []
    for _ in range(n + 1):
        started = time.perf_counter()
        y = convolve(x, w)
        torch.autograd.grad(y, (x, w) if x.requires_grad else (w,), y.detach())
        times.append(1000 * (time.perf_counter() - started))
    return times[1:]


def measure(shape: tuple[int, int, int], batch: int, first: bool, n: int) -> dict[str, Any]:
    """Return the times of a convolution in milliseconds: direct, in torch, and compiled.

    A tile of 0 stands for the direct convolution. In float32, training takes the compiled one. The
    input of the first convolution needs no gradient. On a CPU with AMX, the times in bfloat16
    follow.
    """
    channels, filters, side = shape
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
    w = torch.randn(filters, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(not first)
    w.requires_grad_()
    row: dict[str, Any] = {"channels": channels, "filters": filters, "side": side}
    row["direct_ms"] = spread(passes(direct, x, w, n))
    compiled = winograd_compiled.suits(x.dtype, channels, filters)
    for name, function in (("torch", TorchWinograd), ("compiled", CompiledWinograd)):
        m = best_tile(channels, filters, side, side, compiled=name == "compiled")
        row[f"{name}_tile"], row[f"{name}_ms"] = m, row["direct_ms"]
        if name == "compiled" and not compiled:
            row["compiled_tile"], row["compiled_ms"] = row["torch_tile"], row["torch_ms"]
        elif m:
            row[f"{name}_ms"] = spread(passes(partial(by_tiles, function, m), x, w, n))
    if has_matrix_units():
        lower, factors = (value.detach().bfloat16() for value in (x, w))
        lower.requires_grad_(not first)
        factors.requires_grad_()
        row["bfloat16_ms"] = spread(passes(direct, lower, factors, n))
        row["unfolded_ms"] = spread(passes(unfolded, lower, factors, n))
    return row


def direct(x: Tensor, w: Tensor) -> Tensor:
    """Convolve as torch does."""
    return F.conv2d(x, w, padding=1)


def unfolded(x: Tensor, w: Tensor) -> Tensor:
    """Convolve by one matrix product."""
    y: Tensor = UnfoldedConv3x3.apply(x.permute(0, 2, 3, 1), w)
    return y.permute(0, 3, 1, 2)


def by_tiles(function: type[torch.autograd.Function], m: int, x: Tensor, w: Tensor) -> Tensor:
    """Convolve in tiles of m x m outputs."""
    y: Tensor = function.apply(x.permute(0, 2, 3, 1), w, m)
    return y.permute(0, 3, 1, 2)


def main() -> None:
    """Measure; print a line for each convolution and a sum for each recipe and size; save."""
    options = tyro.cli(Options)
    keep_memory()
    rows: list[dict[str, Any]] = []
    for name in options.recipes:
        config = RECIPES[name]()
        for size in config.sizes or (32,):
            convolutions = []
            for number, shape in enumerate(shapes(name, size)):
                convolutions.append(measure(shape, config.batch_size, number == 0, options.rounds))
                print(name, size, convolutions[-1], flush=True)
            ways = [key.removesuffix("_ms") for key in convolutions[0] if key.endswith("_ms")]
            sums = [
                f"{sum(row[f'{way}_ms']['mean'] for row in convolutions):.0f} ms {way}"
                for way in ways
            ]
            print(f"{name} at {size} px: {', '.join(sums)}")
            about = {"recipe": name, "size": size, "batch": config.batch_size}
            rows += [about | row for row in convolutions]
    if options.save:
        what = "milliseconds of each convolution, forward and backward; a tile of 0 is a direct one"
        save_result("convolutions", what, {"rows": rows})


if __name__ == "__main__":
    main()
