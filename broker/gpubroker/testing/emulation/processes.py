"""Processes of emulated machines, started from an event loop and awaited without a thread each."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO


def spawn(
    arguments: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with this environment and nothing else."""
    return subprocess.Popen(  # noqa: S603 - running what it is told is what a machine does
        list(arguments),
        cwd=cwd,
        env=dict(environment),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end. Its exit status; negative: the signal that ended it."""
    if not hasattr(os, "pidfd_open"):
        return await asyncio.to_thread(process.wait)
    if process.poll() is None:
        handle = os.pidfd_open(process.pid)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
    return process.wait()


class Printed:
    """A pipe whose other end processes print to. What they print is handed on as it comes."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._transport: asyncio.ReadTransport | None = None
        self._over = asyncio.Event()

    async def open(self) -> int:
        """Make it. The end to be given to a process, and then to be closed here."""
        reading, writing = os.pipe()
        file = os.fdopen(reading, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.connect_read_pipe(
                lambda: _Pipe(self._received, self._over), file
            )
        except BaseException:
            file.close()
            os.close(writing)
            raise
        return writing

    async def close(self) -> None:
        """Read what is left of processes that were ended, and close it."""
        if self._transport is not None:
            with suppress(TimeoutError):
                # Another process may hold it open: one that got away.
                await asyncio.wait_for(self._over.wait(), 1.0)
            self._transport.close()


class _Pipe(asyncio.Protocol):
    def __init__(self, received: Callable[[bytes], None], over: asyncio.Event) -> None:
        self._received = received
        self._over = over

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._received(b"")
        self._over.set()
