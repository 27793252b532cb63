"""The real program, run as a process of its own in a home of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gpubroker.ledger.ledger import Ledger
from gpubroker.model.leases import LeaseRow

from .warm import Warm

PATIENCE = 30.0

#: The environment that every home shares.
LOADING = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # the code under test, also from there
    "LC_ALL": "C.UTF-8",
}


class Program:
    """``gpubroker``, with its ledger, its local leases and its working directory under `home`.

    Args:
        warm: what has loaded it already; without, each command loads it anew.
    """

    def __init__(self, home: Path, warm: Warm | None = None) -> None:
        self._warm = warm
        self.home = home
        self.ledger = home / "ledger.db"
        self.local = home / "local"
        self.work = home / "work"
        self.work.mkdir()
        self.env = {
            **LOADING,
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "GPUBROKER_LEDGER": str(self.ledger),
            "GPUBROKER_LOCAL_DIRECTORY": str(self.local),
            "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(home / "locks"),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        if self._warm is not None:
            return self._warm.run(words, self.env | env, self.work, PATIENCE)
        return subprocess.run(
            self._command(words),
            env=self.env | env,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def json(self, *words: str, **env: str) -> Any:
        """Run it to its end, and read the one JSON value on its stdout."""
        return json.loads(self(*words, **env).stdout)

    def start(self, *words: str, **env: str) -> subprocess.Popen[bytes]:
        """Start it, its output piped; it ends with the test at the latest."""
        process = subprocess.Popen(
            self._command(words),
            env=self.env | env,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._started.append(process)
        return process

    def start_job(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a job that would take a minute, and wait until it runs."""
        process = self.start("run", *options, "--", "sh", "-c", "echo started; sleep 60")
        assert line_with(process.stdout, b"started")
        return process

    def on_terminal(self, *words: str, **env: str) -> tuple[int, str]:
        """Run it on a terminal of 80 columns; returns its exit code and all that was written."""
        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            self._command(words),
            env={"TERM": "xterm", **self.env, **env},
            cwd=self.work,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        self._started.append(process)
        os.close(inner)
        written = bytearray()
        ends = time.monotonic() + PATIENCE
        try:
            while select.select([outer], [], [], max(ends - time.monotonic(), 0))[0]:
                written += os.read(outer, 65536)
        except OSError:
            pass  # how a terminal says that everybody has left
        finally:
            os.close(outer)
        return process.wait(PATIENCE), written.decode()

    def leases(self) -> list[LeaseRow]:
        """Every lease on record."""
        ledger = Ledger(self.ledger, entropy=b"tests")
        try:
            return ledger.leases(open_only=False)
        finally:
            ledger.close()

    def alive(self) -> dict[int, str]:
        """The processes of this home's leases, and which job each belongs to ("" for none)."""
        found: dict[int, str] = {}
        for folder in Path("/proc").iterdir():
            try:
                environ = (folder / "environ").read_bytes() if folder.name.isdigit() else b""
            except OSError:
                continue
            pairs = (item.partition(b"=") for item in environ.split(b"\0"))
            variables = {name: value for name, _, value in pairs}
            if variables.get(b"GPUBROKER_LEASE_FOLDER", b"").startswith(bytes(self.local)):
                found[int(folder.name)] = variables.get(b"GPUBROKER_JOB", b"").decode()
        return found

    def end(self) -> None:
        """End what the test has left behind."""
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "gpubroker.cli", *words]


def line_with(stream: IO[bytes] | None, text: bytes) -> bytes:
    """The next line of a stream that holds `text`; empty if there is none in time."""
    assert stream is not None
    line = bytearray()
    ends = time.monotonic() + PATIENCE
    while select.select([stream], [], [], max(ends - time.monotonic(), 0))[0]:
        read = stream.read(1)
        line += read
        if not read or (read == b"\n" and text in line):
            return bytes(line)
        if read == b"\n":
            line.clear()
    return b""
