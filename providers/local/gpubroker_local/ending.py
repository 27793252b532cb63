"""The end of a lease: its runner is asked, then killed; whatever is left is killed too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

import anyio
from anyio import to_thread

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker_local import processes
from gpubroker_local.leases import LeaseFolder
from gpubroker_local.spawn import bury

#: Seconds that a runner gets to end its jobs, and that what was killed gets to go.
_ASKED: Final = 3.0
_KILLED: Final = 2.0
_PAUSE: Final = 0.005


async def end(lease: LeaseFolder, runner: int) -> None:
    """End all processes of a lease, then delete its folder. Quiet if there is nothing to end.

    Args:
        runner: pid of the runner, 0 if it is unknown.

    Raises:
        ProviderError: something is still alive, so it must be tried again.
    """
    if runner:
        await _ask(lease, runner)
    survivors = await _kill_all(lease)
    if runner:
        bury(runner)
    if survivors:
        raise ProviderError(
            f"lease {lease.id} is not released: still running: {survivors}",
            kind=ErrorKind.TRANSIENT,
            scope=Scope.HOST,
        )
    await to_thread.run_sync(lease.remove)


async def _ask(lease: LeaseFolder, runner: int) -> None:
    """Have the runner end its jobs and itself, and wait for that."""
    if not processes.strike(runner, lambda pid: lease.runner() == pid, signal.SIGTERM):
        return
    with anyio.move_on_after(_ASKED):
        await _gone(runner)
        while lease.runner() is not None:  # noqa: ASYNC110  another process's lock has no events
            await anyio.sleep(_PAUSE)


async def _gone(pid: int) -> None:
    """Wait until a process has ended, where the system can say so."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):  # gone already, an old kernel, or another system
        return
    try:
        await anyio.wait_readable(handle)
    finally:
        os.close(handle)


async def _kill_all(lease: LeaseFolder) -> list[int]:
    """Kill everything that carries the lease's name; returns what would not die in time.

    Once anything was found, only the second look in a row that finds nothing counts: a process
    that is just starting a program has no environment for an instant.
    """
    folder = str(lease.path)

    def belongs(pid: int) -> bool:
        return processes.belongings(pid).get(processes.FOLDER) == folder

    # In the loop: when a job has used up the process table, no thread can be had.
    survivors = _strike_all(belongs)
    clear = 2 if not survivors else 0
    with anyio.move_on_after(_KILLED):
        while clear < 2:
            await anyio.sleep(_PAUSE)
            survivors = _strike_all(belongs)
            clear = 0 if survivors else clear + 1
    return survivors


def _strike_all(belongs: Callable[[int], bool]) -> list[int]:
    found: list[int] = []
    for pid in processes.pids():
        # First the group: by the time that its environment is read, the process may have passed
        # its life on to a child of the same group.
        group = processes.group_of(pid)
        if belongs(pid):
            found.append(pid)
            processes.kill_group(group)
            processes.strike(pid, belongs)
    return found
