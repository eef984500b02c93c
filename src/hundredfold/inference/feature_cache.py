"""Cache features of pictures in an SQLite file in the user's cache folder.

A cache only saves time. If its file cannot be read or written, features are computed again.
"""

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hundredfold.support.files import cache_folder

FILE = "features.sqlite"
MAX_BYTES = 2**30
"""Size of the file in bytes above which the older half of the features is deleted."""
MAX_VARIABLES = 500
"""Number of keys in a query. SQLite allows at least 999."""
WAIT = 30.0
"""Time in seconds to wait while another process writes."""


class FeatureCache:
    """The features of pictures by their keys; used as a context manager."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE
        self.database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError):
            self._give_up()
        return self

    def __exit__(self, *_: object) -> None:
        if self.database:
            self.database.close()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Return the features (D,) float32 of those keys that are cached and undamaged."""
        found: dict[bytes, Tensor] = {}
        try:
            for start in range(0, len(keys) if self.database else 0, MAX_VARIABLES):
                some = keys[start : start + MAX_VARIABLES]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, value FROM features WHERE key IN ({marks})"  # noqa: S608
                for key, value in self.database.execute(query, some):  # type: ignore[union-attr]
                    if zlib.crc32(value[4:]).to_bytes(4, "big") == value[:4]:
                        found[key] = torch.frombuffer(bytearray(value[4:]), dtype=torch.float32)
        except sqlite3.Error:
            self._give_up()
        return found

    def write(self, features: Mapping[bytes, Tensor]) -> None:
        """Add features, (D,) float32 each, by their keys; none if the file is large enough."""
        rows = []
        for key, value in features.items():
            content = value.contiguous().numpy().tobytes()
            rows.append((key, zlib.crc32(content).to_bytes(4, "big") + content))
        try:
            if self.database and self.path.stat().st_size <= MAX_BYTES:
                with self.database:
                    self.database.executemany("REPLACE INTO features VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError):
            self._give_up()

    def _open(self) -> None:
        self.database = sqlite3.connect(self.path, timeout=WAIT)
        self.database.execute("PRAGMA synchronous = OFF")  # a lost cache is no loss
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
        )
        if self.path.stat().st_size > MAX_BYTES:
            with self.database:
                self.database.execute(
                    "DELETE FROM features WHERE rowid <= (SELECT AVG(rowid) FROM features)"
                )
            self.database.execute("VACUUM")

    def _give_up(self) -> None:
        """Go on without the cache; delete its file, which may be damaged, unless it is in use."""
        if self.database:
            with suppress(sqlite3.Error):
                self.database.close()
        self.database = None
        with suppress(OSError):
            self.path.unlink()
