"""Download data sets of the Hugging Face Hub with its own client, which is an extra."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hundredfold.data.shards import find_shards
from hundredfold.pictures.load import is_picture, picture_suffixes
from hundredfold.support.errors import UnavailableError, UserError, extra

PREFIX = "hf:"
SHARDS = (".parquet", ".tar", ".tar.gz", ".tgz", ".txt", "shards.jsonl")
"""Files of shards, of their class names, and of their checksums."""
TABLES = (".csv", ".tsv")


def is_data(name: str) -> bool:
    """Return whether a file is to be downloaded: a shard, a table or a picture, by its name."""
    path = PurePosixPath(name)
    return path.name.lower().endswith((*SHARDS, *TABLES)) or is_picture(Path(path.name))


def _patterns(folder: str, suffixes: Iterable[str]) -> list[str]:
    """Return patterns of files in a folder with these suffixes in upper or lower case."""
    start = f"{folder}/*" if folder else "*"
    either = (
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix) for suffix in suffixes
    )
    return [start + suffix for suffix in either]


def download_dataset(source: str) -> Path:
    """Download the data set `hf:OWNER/NAME`, or a folder of it, and return its folder.

    If the data set has shards, pictures beside them are not downloaded: they are those of its page.
    Files that were downloaded before and have not changed on the Hub are not downloaded again.
    Without a network, what was downloaded before is used.

    Args:
        source: hf:OWNER/NAME, or hf:OWNER/NAME/FOLDER.

    Raises:
        UserError: the name has another form, there is no such data set, or huggingface_hub is
            missing.
        UnavailableError: there is no network, or the Hub requires credentials.
    """
    parsed = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)", source)
    if not parsed:
        raise UserError(f"--data {source} is not of the form hf:OWNER/NAME.")
    name, folder = parsed[1], parsed[2].removeprefix("/")
    with extra("hub", "Data from the Hugging Face Hub needs"):
        from huggingface_hub import errors, snapshot_download  # noqa: PLC0415
        from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415
    if not sys.stderr.isatty():
        disable_progress_bars()

    def download(suffixes: Iterable[str]) -> Path:
        patterns = _patterns(folder, suffixes)
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns)) / folder

    try:
        path = download(SHARDS)
        return (
            path
            if path.is_dir() and find_shards(path)
            else download((*SHARDS, *TABLES, *picture_suffixes()))
        )
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UnavailableError(
            f"The Hugging Face Hub requires that you accept the terms of {name}. Do so on its page "
            "there, log in with: hf auth login, and try again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"The Hugging Face Hub has no data set {name}, or it is private. If it is yours, log "
            "in with: hf auth login"
        ) from error
    except Exception as error:  # of the network, the server or the disk; the client has many kinds
        raise UnavailableError(
            f"Cannot download {name} from the Hugging Face Hub ({type(error).__name__}). Check the "
            "network and the free disk space."
        ) from error
