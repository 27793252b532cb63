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
#: Looks at the process table that must find nothing after something was found.
_LOOKS: Final = 12


async def end(lease: LeaseFolder, runner: int) -> None:
    """End all processes of a lease, then delete its folder. Quiet if there is nothing to end.

    Args:
        runner: pid of the runner, 0 if it is unknown.

    Raises:
        ProviderError: something is still alive, so it must be tried again.
    """
    # A runner that ended when asked has seen to everything; otherwise anything may be left.
    ended_well = runner != 0 and await _ask(lease, runner)
    survivors = await _kill_all(lease, looks=1 if ended_well else _LOOKS)
    if runner:
        bury(runner)
    if survivors:
        raise ProviderError(
            f"lease {lease.id} is not released: still running: {survivors}",
            kind=ErrorKind.TRANSIENT,
            scope=Scope.HOST,
        )
    await to_thread.run_sync(lease.remove)


async def _ask(lease: LeaseFolder, runner: int) -> bool:
    """Have the runner end its jobs and itself, and wait for that. Returns whether it did."""
    if not processes.strike(runner, lambda pid: lease.runner() == pid, signal.SIGTERM):
        return False
    with anyio.move_on_after(_ASKED):
        await _gone(runner)
        while lease.runner() is not None:  # noqa: ASYNC110  another process's lock has no events
            await anyio.sleep(_PAUSE)
        return True
    return False


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


async def _kill_all(lease: LeaseFolder, looks: int) -> list[int]:
    """Kill everything that carries the lease's name; returns what would not die in time.

    Once anything was found, only several looks in a row that find nothing count: a process that is
    just starting a program has no environment for an instant, and one that keeps passing its life
    on to a child may slip through a look or two.

    Args:
        looks: how many looks in a row must find nothing as long as none has found anything.
    """
    folder = str(lease.path)

    def belongs(pid: int) -> bool:
        return processes.belongings(pid).get(processes.FOLDER) == folder

    # In the loop: when a job has used up the process table, no thread can be had.
    survivors = _strike_all(belongs)
    clear, looks = (0, _LOOKS) if survivors else (1, looks)
    with anyio.move_on_after(_KILLED):
        while clear < looks:
            await anyio.sleep(_PAUSE)
            survivors = _strike_all(belongs)
            clear = 0 if survivors else clear + 1
            looks = _LOOKS if survivors else looks
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
