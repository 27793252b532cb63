"""The SQLite file: connection, transactions, and what its errors mean.

`Store` is used from one thread of one process. A transaction waits at most `busy` seconds for
another process; waiting longer is the caller's decision.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Final, cast

from gpubroker.errors import BrokerClosed, LedgerBusy, LedgerError, LedgerUnusable
from gpubroker.ledger.mounts import network_mount
from gpubroker.ledger.sql import Row

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_MOVE_ASIDE: Final = (
    "; move it aside, with its -wal and -shm files but not its .key, and run `gpubroker adopt`:"
    " it finds the machines that are still running"
)
#: What to do next, by SQLite's primary result code.
_ADVICE: Final = {
    sqlite3.SQLITE_CORRUPT: _MOVE_ASIDE,
    sqlite3.SQLITE_NOTADB: f"; if it was the ledger{_MOVE_ASIDE}",
    sqlite3.SQLITE_FULL: "; make room on its disk",
    sqlite3.SQLITE_IOERR: "; look after its disk: is it full, or failing?",
    sqlite3.SQLITE_READONLY: "; make the file and its folder writable for this user",
    sqlite3.SQLITE_CANTOPEN: "; make the file and its folder writable for this user",
}


class _Connection(sqlite3.Connection):
    """Writes text as Unicode, whatever its source: half of a surrogate pair becomes "?".

    A vendor's error or a file's name may hold one, and must not be able to stop a release.
    """

    counting = "INTEGER PRIMARY KEY AUTOINCREMENT"

    def version(self) -> int:
        number: int = self.execute("PRAGMA user_version").fetchone()["user_version"]
        return number

    def set_version(self, number: int) -> None:
        self.execute(f"PRAGMA user_version = {number:d}")

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if isinstance(parameters, Mapping):
            named = cast("Mapping[str, Any]", parameters)
            parameters = {name: _encodable(value) for name, value in named.items()}
        return super().execute(sql, parameters)


def _mapping(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _encodable(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="replace").decode()
    return value


class Store:
    """One open SQLite ledger file, made with mode 0600 where it is missing.

    Args:
        path: the file; ``None`` keeps everything in memory, for tests and dry runs.
        busy: seconds that one operation may wait for another process.

    Raises:
        LedgerUnusable: it cannot be opened, or is no ledger.
    """

    def __init__(self, path: Path | None, *, busy: float = 0.2) -> None:
        self.path = path
        self._pid = os.getpid()
        try:
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_mount(path)
                _make(path)
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path,
                timeout=busy,
                isolation_level=None,
                factory=_Connection,
            )
            self._connection.row_factory = _mapping
        except OSError as error:
            raise LedgerUnusable(f"cannot open the ledger {path}: {error.strerror}") from error
        try:
            with self._translated():
                # Power loss after a commit must not undo it: a create may have left on its word.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA journal_mode = WAL")
        except LedgerError:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Generator[_Connection]:
        """Everything inside happens, durably, or nothing does.

        Raises:
            LedgerBusy: another process kept the file locked. Nothing has happened.
            LedgerUnusable: the file cannot be written or read. Nothing has happened.
        """
        self._check_process()
        with self._translated():
            # A read that turns into a write cannot wait in SQLite, so the lock comes first.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Generator[_Connection]:
        """One consistent look at the ledger, which waits for no writer."""
        self._check_process()
        with self._translated():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                # SQLite may have done it by itself; why then is what is to be told.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def concerns(self) -> list[str]:
        """That others may read the file, if they may."""
        if self.path is None or not self.path.stat().st_mode & 0o077:
            return []
        return [f"the ledger {self.path} may be read by others; run: chmod 600 {self.path}"]

    def damage(self) -> list[str]:
        """What SQLite's own check of the whole file finds wrong, one line each."""
        with self.reading() as sql:
            lines = [str(row["integrity_check"]) for row in sql.execute("PRAGMA integrity_check")]
        return [] if lines == ["ok"] else lines

    def abandon(self) -> None:
        """Nothing: no operation hangs, since each waits `busy` seconds at the most."""

    def close(self) -> None:
        """Close the file. A child of a fork must leave its parent's connection alone."""
        if self._pid == os.getpid():
            self._connection.close()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise BrokerClosed("this broker belongs to the process before the fork; open a new one")

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise BrokerClosed(
                f"the ledger is closed or used from another thread: {error}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._meaning(error) from error
        except UnicodeDecodeError as error:
            # Text of a damaged file, or SQLite's own error message that quotes it.
            raise LedgerUnusable(f"the ledger {self.path} is damaged{_MOVE_ASIDE}") from error

    def _meaning(self, error: sqlite3.DatabaseError) -> LedgerError:
        if isinstance(error, sqlite3.IntegrityError):
            # The row is what is wrong, not the file: waiting would not mend it.
            return LedgerError(f"the ledger {self.path} refused a row: {error}")
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _BUSY:
            return LedgerBusy(f"the ledger {self.path} is held by another process")
        advice = "" if code is None else _ADVICE.get(code & 0xFF, "")
        return LedgerUnusable(f"the ledger {self.path} cannot be used: {error}{advice}")


def _make(path: Path) -> None:
    """Make the file where there is none; one that is there must be ours to write."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Looked at, not opened: closing it again would drop the locks that other connections of
        # this process have on it.
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        effective = os.access in os.supports_effective_ids
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=effective):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _check_mount(path: Path) -> None:
    try:
        mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
    except OSError:
        return  # a system that does not say
    kind = network_mount(PurePath(path.parent.resolve()), mounts)
    if kind is not None and os.environ.get("GPUBROKER_LEDGER_ANYWHERE") != "1":
        raise LedgerUnusable(
            f"the ledger {path} is on a network file system ({kind}), where SQLite files get"
            " damaged: keep it on a local disk, use postgresql:// for many hosts, or set"
            " GPUBROKER_LEDGER_ANYWHERE=1 if only one host ever uses it"
        )
