"""The command line: the only parsing. Flags come from dataclasses and signatures (tyro)."""

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
from hundredfold.support.distributed import below_torchrun
from hundredfold.support.errors import FoundWrong, UserError, brief
from hundredfold.support.starting import INTERRUPTED, end_at_once, loaded

DONE, FOUND_WRONG, WRONG_USE = 0, 1, 2

COMMANDS: Mapping[str, str] = {
    "explore": "show the data: pictures of each class, as augmented, counts",
    "audit": "look for what is wrong with the data before training: files, duplicates, labels",
    "train": "train and write a run directory",
    "lr-find": "find a learning rate: the loss while the rate rises",
    "tune": "search for better values of a recipe",
    "resume": "go on with a run that was interrupted, as if it had not been",
    "reproduce": "do a run again and say whether every epoch is the same to the bit",
    "track": "send a run to TensorBoard or MLflow",
    "evaluate": "measure a run's weights again on the test set",
    "predict": "classify pictures",
    "explain": "show what in a picture speaks for its class, and what it is like",
    "app": "show a model as a web page, and answer programs in JSON",
    "export": "write a model for other programs, proven equal: ONNX, torch.export",
    "push": "put a run on the Hugging Face Hub, with its card",
    "report": "write a run's page: curves, confusion, mistakes, calibration",
    "runs": "list the runs of a folder, with what each reached",
    "ablate": "train a recipe without each of its parts in turn",
    "compare": "compare runs: over seeds, by time, and whether it is more than chance",
}
"""What each does; each is a module here with a `main(arguments)`."""


def entry() -> NoReturn:
    """Run the command line of this process and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        code: str | int | None = main(sys.argv[1:])
    except SystemExit as asked:
        code = asked.code
    except KeyboardInterrupt:  # a second one, while the first was told
        code = INTERRUPTED
    end_at_once(code if isinstance(code, int) else DONE)
    if below_torchrun() and isinstance(code, int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # gloo's threads now and then abort a process that takes itself apart
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run a command line; return 0 done, 1 found wrong, 2 wrong use, or 130 interrupted."""
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
    except BrokenPipeError:  # whoever reads, `head` say, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except FoundWrong as found:
        error_console.print(escape(str(found)))
        return FOUND_WRONG
    except (UserError, OSError) as error:  # an OSError says which file, and why not
        error_console.print(f"[red]error:[/] {escape(brief(str(error)))}")
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
        *(f"  hundredfold {name:10}{what}" for name, what in COMMANDS.items()),
        "  hundredfold COMMAND --help    all flags of a command",
        "",
        "Recipes for train (fast is taken where none is named; --budget 5min picks one):",
        *(
            f"  {name:14}{escape((recipe.__doc__ or '').splitlines()[0])}"
            for name, recipe in RECIPES.items()
        ),
    ]
    return "\n".join(lines)
