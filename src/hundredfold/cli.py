"""The command line: the only parsing. Flags come from the dataclass and signatures (tyro)."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import tyro
from rich.markup import escape

from hundredfold.budget import choose_recipe
from hundredfold.config import Config
from hundredfold.console import console, error_console
from hundredfold.data import load_data
from hundredfold.display import metrics_table
from hundredfold.errors import UserError
from hundredfold.evaluate import evaluate
from hundredfold.recipes import RECIPES
from hundredfold.run import Run
from hundredfold.train import train

T = TypeVar("T")

DONE, WRONG_USE, INTERRUPTED = 0, 2, 130


def entry() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 done, 2 wrong use, 130 interrupted."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            console.print(usage())
        elif arguments[0] == "--version":
            console.print(f"hundredfold {version('hundredfold')}")
        else:
            choose("command", arguments[0], COMMANDS)(arguments[1:])
    except (UserError, OSError) as error:  # an OSError says which file, and why not
        error_console.print(f"[red]error:[/] {escape(str(error))}")
        return WRONG_USE
    except KeyboardInterrupt:
        error_console.print("Interrupted.")
        return INTERRUPTED
    return DONE


def usage() -> str:
    """Return the overview of all commands and recipes."""
    lines = [
        "[bold]hundredfold[/]: train accurate image classifiers in minutes on a plain CPU",
        "",
        "  hundredfold train \\[RECIPE] \\[flags]   train and write a run directory",
        "  hundredfold train --budget 5min      the recipe and schedule that suit a time",
        "  hundredfold evaluate RUN             measure a run's weights again on the test set",
        "  hundredfold COMMAND --help           all flags of a command",
        "",
        "Recipes (fast is taken where none is named):",
    ]
    for name, recipe in RECIPES.items():
        lines.append(f"  {name:14}{escape((recipe.__doc__ or '').splitlines()[0])}")
    return "\n".join(lines)


def choose(kind: str, name: str, choices: Mapping[str, T]) -> T:
    """Return the choice of that name.

    Raises:
        UserError: there is none; names the ones there are, and a close one.
    """
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"There is no {kind} {name!r}: there is {', '.join(choices)}.{hint}")


def train_command(arguments: Sequence[str]) -> None:
    """Train a recipe: its values are the flags' defaults."""
    if arguments and not arguments[0].startswith("-"):
        train(parse_config(arguments[0], arguments[1:]))
        return
    config, dataset = parse_config("fast", arguments), None
    if config.budget:
        dataset = load_data(config.data)
        config = parse_config(choose_recipe(config, dataset), arguments)
    train(config, dataset)


def parse_config(name: str, arguments: Sequence[str]) -> Config:
    """Return a recipe's configuration with what the flags change; --help exits here."""
    recipe = choose("recipe", name, RECIPES)
    return tyro.cli(
        Config,
        prog=f"hundredfold train {name}",
        description=recipe.__doc__,
        default=recipe(),
        args=arguments,
    )


def evaluate_command(arguments: Sequence[str]) -> None:
    """Measure a run's weights again on its test set."""
    tyro.cli(evaluate_run, prog="hundredfold evaluate", args=arguments)


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional], /, data: str = "", device: str = ""
) -> None:
    """Measure a run's weights again on the test set, and compare with what training recorded.

    Args:
        run: The run directory.
        data: Where the data is now, as in train; empty for where the run found it.
        device: As in train; empty for the one that the run asked for.
    """
    found = Run(run)
    metrics = evaluate(found, data, device)
    console.print(metrics_table(metrics, found.info.labels))
    if not found.finished:
        progress = f"{len(found.history)} of {found.config.epochs:g} epochs"
        console.print(f"The run was not finished: these are its weights after {progress}.")
        return
    stored = found.metrics
    recorded = {view: stored.get(view) for view in ("test", "test_flip")}
    if all(recorded[view] == metrics[view] for view in recorded):
        console.print("Equal, to the last digit, to what training recorded.")
    else:
        console.print(
            f"NOT equal to what training recorded, {recorded}. "
            "Another device, thread count or version of torch rounds differently."
        )


COMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
}
