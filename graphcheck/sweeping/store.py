"""Results in a SQLite file, one row for each key, written as they come: a sweep that is interrupted loses none."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from graphcheck.errors import GraphcheckError
from graphcheck.formats.json import dumps
from graphcheck.outcome import TROUBLE, Outcome
from graphcheck.verdict import Verdict

_APPLICATION, _VERSION = 0x67726368, 2  # "grch"; the version of the table below
_TABLE = """CREATE TABLE IF NOT EXISTS results (
  key TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, failure TEXT, a TEXT, b TEXT,
  seconds REAL NOT NULL, memory INTEGER NOT NULL, timeout REAL NOT NULL, max_memory INTEGER NOT NULL,
  finished REAL NOT NULL, result BLOB, code TEXT) WITHOUT ROWID"""
_COLUMNS = "name, status, reason, failure, a, b, seconds, memory, code, result"
_ALL = "key, name, status, reason, a, b, seconds, memory, timeout, max_memory, code, result, failure, finished"


def _unpack(packed: bytes | None) -> dict[str, Any] | None:
    return None if packed is None else json.loads(zlib.decompress(packed))


class Store:
    """The file; raises GraphcheckError where it is no store or cannot be written. To be used by one thread."""

    def __init__(self, path: Path, called: Path | None = None) -> None:
        self.path = called or path  # as errors name it
        with self._trouble():
            self.connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses no row, a power cut the last
            marks = [self._number(f"PRAGMA {name}") for name in ("application_id", "user_version")]
            if marks == [0, 0] and not self._number("SELECT count(*) FROM sqlite_master"):
                self.connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                self.connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif marks == [_APPLICATION, 1]:  # without the codes of failures
                self.connection.execute("ALTER TABLE results ADD COLUMN code TEXT")
                self.connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif marks != [_APPLICATION, _VERSION]:
                raise GraphcheckError(
                    f"{self.path}: is not a store of this version of graphcheck; name another with --store"
                )
            self.connection.execute(_TABLE)

    def known(
        self, key: str, timeout: float, max_memory: int, retry: bool = False, final: bool = False
    ) -> Outcome | None:
        """The outcome stored under ``key``, unless another try could tell more.

        That is so for a lost worker, for what ended without an answer under tighter limits than these (``timeout``
        seconds, ``max_memory`` bytes), and with ``retry`` for every failure. With ``final`` what is stored is the answer.
        """
        with self._trouble():
            row = self.connection.execute(
                f"SELECT timeout, max_memory, {_COLUMNS} FROM results WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        fields = dict(zip(_COLUMNS.split(", "), row[2:], strict=True))
        outcome = Outcome(**fields | {"result": _unpack(fields["result"])}, known=True, key=key).brief()
        open_ = outcome.status in (Verdict.UNDECIDED, TROUBLE)
        tighter = timeout > row[0] or max_memory > row[1]
        again = outcome.failure == "lost" or (open_ and tighter) or (retry and outcome.failure is not None)
        return None if again and not final else outcome

    def result(self, key: str) -> dict[str, Any] | None:
        """The whole result under ``key``."""
        with self._trouble():
            row = self.connection.execute("SELECT result FROM results WHERE key = ?", (key,)).fetchone()
        return row and _unpack(row[0])

    def put(self, key: str, outcome: Outcome, timeout: float, max_memory: int) -> None:
        """Write the outcome of ``key`` in the place of any older one, durably."""
        o = outcome
        packed = None if o.result is None else zlib.compress(dumps(o.result).encode())
        values = (o.name, o.status, o.reason, o.failure, o.a, o.b, o.seconds, o.memory, o.code, packed)
        row = (key, *(v.encode(errors="replace").decode() if isinstance(v, str) else v for v in values))
        with self._trouble():
            self.connection.execute(
                f"INSERT OR REPLACE INTO results (key, {_COLUMNS}, timeout, max_memory, finished) "
                f"VALUES ({', '.join('?' * 14)})",
                (*row, timeout, max_memory, time.time()),
            )

    def take(self, path: Path) -> int:
        """Take over the rows of another store, which is read from a copy; returns how many there are.

        Of two with one key stays the one that is no failure, or else the later one.
        """
        if not path.is_file():
            raise GraphcheckError(f"{path}: there is no such store")
        with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
            copy = Path(folder, "store")
            for ending in ("", "-wal"):  # rows of a sweep that was ended are in the second file
                source = path.with_name(path.name + ending)
                if source.is_file():
                    shutil.copyfile(source, copy.with_name(copy.name + ending))
            with Store(copy, called=path) as other:
                return sum(map(self._take_row, other._rows()))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        with self._trouble():
            yield from self.connection.execute(f"SELECT {_ALL} FROM results")

    def _take_row(self, row: tuple[Any, ...]) -> int:
        key, failure, finished = row[0], *row[-2:]
        with self._trouble():
            mine = self.connection.execute("SELECT failure, finished FROM results WHERE key = ?", (key,)).fetchone()
            if mine is None or (failure is None, finished) > (mine[0] is None, mine[1]):
                self.connection.execute(f"REPLACE INTO results ({_ALL}) VALUES ({', '.join('?' * len(row))})", row)
        return 1

    def _number(self, query: str) -> int:
        return int(self.connection.execute(query).fetchone()[0])

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise GraphcheckError(f"{self.path}: cannot serve as the store of results: {error}") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.connection.close()
