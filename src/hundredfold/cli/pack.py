"""`hundredfold pack`."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.data.load import find_source
from hundredfold.data.pack import pack
from hundredfold.support.console import console, duration, escape, say
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded
from hundredfold.support.text import plural


@dataclass(frozen=True)
class PackOptions:
    """Pack pictures into shards of WebDataset: a few large files instead of many small ones.

    The files of the pictures are copied as they are. To go on after an interruption, run the same
    command again.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder, an archive or a table of pictures, as in train --data."""
    to: Path
    """Folder for the shards."""
    per_shard: int = 1000
    """Number of pictures in each shard."""


def main(arguments: Sequence[str]) -> None:
    """Pack pictures."""
    options, started = tyro.cli(PackOptions, prog="hundredfold pack", args=arguments), time.time()
    source, folder = find_source(options.data), expanded(options.to)
    if source is None:
        raise UserError(f"{options.data} is not a folder, an archive or a table of pictures.")
    shards = pack(source, folder, options.per_shard, say)
    pictures = plural(sum(shard.pictures for shard in shards), "picture")
    size = sum(shard.bytes for shard in shards) / 1e6
    console.print(
        f"{pictures} in {plural(len(shards), 'shard')}, {size:,.1f} MB, "
        f"in {duration(time.time() - started)}."
    )
    console.print(f"Next    hundredfold train --data {escape(shlex.quote(str(folder)))}")
