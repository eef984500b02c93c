"""Run the command that the command line names; tyro makes its flags from types and docstrings."""

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from hundredfold import __version__
from hundredfold.cli.lookup import look_up
from hundredfold.recipes import RECIPES
from hundredfold.support.console import console, error_console, escape
from hundredfold.support.distributed import started_by_torchrun
from hundredfold.support.errors import CheckFailed, UserError, brief
from hundredfold.support.starting import INTERRUPTED, end_at_once, loaded

DONE, FOUND_WRONG, WRONG_USE = 0, 1, 2

COMMANDS: Mapping[str, str] = {
    "explore": "show the data before training: pictures and counts of each class",
    "audit": "check the data before training: files, duplicates, labels",
    "pack": "pack pictures into shards: a few large files instead of many small ones",
    "teach": "serve a page on which you show pictures, train in seconds, and try the model",
    "train": "train a model and write a run directory",
    "lr-find": "find a learning rate: measure the loss while the rate rises",
    "tune": "search for better values of a recipe",
    "resume": "continue an interrupted run exactly where it stopped",
    "reproduce": "repeat a run and check that every epoch is the same to the bit",
    "track": "send a run to TensorBoard or MLflow",
    "evaluate": "measure a run's weights on the test set again",
    "predict": "classify pictures",
    "explain": "show which parts of a picture support the prediction",
    "suggest": "suggest which pictures to label next",
    "app": "serve a model as a web page and a JSON endpoint",
    "export": "export a model to ONNX or torch.export, and check its predictions",
    "push": "publish a run on the Hugging Face Hub, with a model card",
    "report": "write a page about a run: curves, confusion, mistakes, calibration",
    "runs": "list the runs of a folder with their results",
    "ablate": "train a recipe without each of its parts in turn",
    "compare": "compare runs over seeds and time, with tests of significance",
}
"""What each command does. Each command is a module in this folder with a function
`main(arguments)`."""


def entry() -> NoReturn:
    """Run the command line of this process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may not be valid text
            stream.reconfigure(errors="backslashreplace")
    try:
        code: str | int | None = main(sys.argv[1:])
    except SystemExit as asked:
        code = asked.code
    except KeyboardInterrupt:  # a second Ctrl-C, while the first is reported
        code = INTERRUPTED
    end_at_once(code if isinstance(code, int) else DONE)
    if started_by_torchrun() and isinstance(code, int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at exit, threads of gloo sometimes abort the process
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run a command line, and return its exit code.

    Returns:
        0 if the command succeeded, 1 if a check failed, 2 for wrong use, 130 after Ctrl-C.
    """
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            console.print(usage())
        elif arguments[0] == "--version":
            console.print(f"hundredfold {__version__}")
        else:
            look_up("command", arguments[0], COMMANDS)
            module = arguments[0].replace("-", "_")
            command = importlib.import_module(f"hundredfold.cli.{module}")
            loaded()
            command.main(arguments[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except CheckFailed as found:
        error_console.print(escape(str(found)))
        return FOUND_WRONG
    except (UserError, OSError) as error:  # an OSError names the file and the cause
        error_console.print(f"[red]error:[/] {escape(brief(str(error)))}")
        return WRONG_USE
    except KeyboardInterrupt:
        error_console.print("Interrupted.")
        return INTERRUPTED
    return DONE


def usage() -> str:
    """Return an overview of all commands and recipes."""
    lines = [
        "[bold]hundredfold[/]: train accurate image classifiers in minutes on a plain CPU",
        "",
        *(f"  hundredfold {name:10}{what}" for name, what in COMMANDS.items()),
        "  hundredfold COMMAND --help    show all flags of a command",
        "",
        "Recipes for train (default: fast for CIFAR-100, finetune for your own photos;",
        "--budget 5min chooses one that fits the time):",
        *(
            f"  {name:14}{escape((recipe.__doc__ or '').splitlines()[0])}"
            for name, recipe in RECIPES.items()
        ),
    ]
    return "\n".join(lines)
