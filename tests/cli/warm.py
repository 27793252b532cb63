"""Processes of the program that need not load it first: forks of one that has.

Loading takes most of a short command's time. A fork is a process of its own all the same: its
environment, its working directory and its output are what it was given, and it ends by itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

#: What most commands load, sooner or later.
_LOADED: Final = (
    "anyio._backends._asyncio",
    "gpubroker.broker",
    "gpubroker.cli.app",
    "gpubroker.ledger.verify",
    "gpubroker.lifecycle.opening",
    "gpubroker.lifecycle.pooling.batch",
    "gpubroker.lifecycle.reaping.lost_ledger",
    "gpubroker.lifecycle.renting.acquire",
    "gpubroker.lifecycle.standing",
    "gpubroker.rest",
    "gpubroker_local.provider",
    "gpubroker_runpod.provider",
    "gpubroker_vast.provider",
    "rich.table",
)


class Warm:
    """Runs commands of the program, one at a time.

    Args:
        env: the environment in which the program is loaded.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._start()

    def _start(self) -> None:
        self._line, other = socket.socketpair()
        with other:
            self._server = subprocess.Popen(
                [sys.executable, "-P", __file__, str(other.fileno())],
                env=self._env,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(
        self, words: Sequence[str], env: Mapping[str, str], work: Path, patience: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end, for `patience` seconds at the most."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            order = {"words": list(words), "env": dict(env), "work": str(work)}
            socket.send_fds(self._line, [json.dumps(order).encode()], [out.fileno(), err.fileno()])
            self._line.settimeout(patience)
            try:
                status = int(self._line.recv(100))
            except TimeoutError:
                self.end()
                self._start()
                raise subprocess.TimeoutExpired(list(words), patience) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(words), status, out.read(), err.read())

    def end(self) -> None:
        """End the process that loaded the program, and a command that still runs."""
        self._line.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()


def _serve(line: socket.socket) -> None:
    """Fork for each order. Returns in the forks only."""
    while True:
        text, fds, *_ = socket.recv_fds(line, 1_000_000, 2)
        if not text:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            _become(json.loads(text), fds)
            return
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: dict[str, Any], fds: Sequence[int]) -> None:
    """Be the process that was ordered."""
    for fd, stream in zip(fds, (1, 2), strict=True):
        os.dup2(fd, stream)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["work"])
    added = [place for place in order["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:0] = [order["work"], *(place for place in added if place not in sys.path)]
    sys.argv[1:] = order["words"]


if __name__ == "__main__":
    for name in _LOADED:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
    runpy.run_module("gpubroker.cli", run_name="__main__", alter_sys=True)
