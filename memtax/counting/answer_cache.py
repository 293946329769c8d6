"""Answers of an index of counts on this disk, so that nothing is asked for twice.

Each answer has a digest: one that does not match, or a file that cannot be read, is as if it had not been asked for.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memtax.progress import report_warning

Answer = tuple[int, bool]
"""Occurrences, and whether their number is an approximation."""
_DAMAGED = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
)
_CREATE = "CREATE TABLE IF NOT EXISTS answers (query TEXT PRIMARY KEY, count INTEGER, approximate INTEGER, digest TEXT)"


class AnswerCache:
    """A file of answers; without it, if it cannot be used (no rights, no space, locked), nothing is kept.

    Args:
        path: the file; the folder is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned: set[str] = set()
        self._connection: sqlite3.Connection | None = None
        with self._explained():
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
        # What a killed process wrote is kept; only a crash of the machine can damage the file, which is then noticed.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(_CREATE)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Begin a damaged file anew, and do without one that cannot be used."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.close()
            if not isinstance(error, sqlite3.DatabaseError) or not self._is_damaged(error):
                self._warn(f"the cache {self.path} cannot be used ({error}); answers are not kept")
                return
            self._warn(f"the cache {self.path} is damaged; its counts are asked for again")
            with contextlib.suppress(sqlite3.Error, OSError):
                for name in ("", "-journal", "-wal", "-shm"):
                    self.path.with_name(self.path.name + name).unlink(missing_ok=True)
                self._open()

    def _is_damaged(self, error: sqlite3.DatabaseError) -> bool:
        # Extended codes have the general one in their lowest byte.
        return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF) in _DAMAGED

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            report_warning(text)

    def get(self, query: Any) -> Answer | None:
        """The answer to a query, or None."""
        key, row = digest(query), None
        if self._connection is not None:
            with self._explained():
                chosen = "SELECT count, approximate, digest FROM answers WHERE query = ?"
                row = self._connection.execute(chosen, (key,)).fetchone()
        if row is None:
            return None
        if row[2] != digest([key, *row[:2]]):
            self._warn(f"the cache {self.path} is damaged; its counts are asked for again")
            return None
        return int(row[0]), bool(row[1])

    def put(self, query: Any, answer: Answer) -> None:
        """Keep the answer to a query."""
        if self._connection is not None:
            key, values = digest(query), [answer[0], int(answer[1])]
            with self._explained():
                row = (key, *values, digest([key, *values]))
                self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()
