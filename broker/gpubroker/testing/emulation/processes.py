"""Processes of emulated machines, started from an event loop and awaited without a thread each."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
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
