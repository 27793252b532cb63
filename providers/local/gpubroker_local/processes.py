"""The process table: who belongs to which lease, and ends of processes that hit nobody else.

Every process of a lease inherits the names below in its environment, so the table alone shows
what still lives, even if every file of the lease is gone. On systems without ``/proc`` nothing
is found here, and only the runner knows its jobs.
"""

# A lease's start-up waits for this module, and pathlib alone would double it.
# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import os

from gpubroker_local.startup import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "GPUBROKER_MARK"
LEASE = "GPUBROKER_LEASE"
#: The lease's folder: tells leases of other state directories from ours.
FOLDER = "GPUBROKER_LEASE_FOLDER"
JOB = "GPUBROKER_JOB"
#: The ids of the cards a process may use, joined by commas.
CARDS = "GPUBROKER_CARDS"

_PREFIX = b"GPUBROKER_"


def pids() -> list[int]:
    """Every process there is; none where there is no ``/proc``."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def belongings(pid: int) -> dict[str, str]:
    """The ``GPUBROKER_`` variables a process was started with; empty for zombies and strangers."""
    text = _read(pid, "environ")
    if _PREFIX not in text:
        return {}
    pairs = (item.partition(b"=") for item in text.split(b"\0") if item.startswith(_PREFIX))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def marked() -> Iterator[tuple[int, dict[str, str]]]:
    """Every living process that belongs to some lease, with its `belongings`."""
    for pid in pids():
        owned = belongings(pid)
        if FOLDER in owned:
            yield pid, owned


def lineage(pid: int) -> tuple[int, int]:
    """Parent and session of a process; zeros if it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[1]), int(fields[3])) if len(fields) > 3 else (0, 0)


def group_of(pid: int) -> int:
    """The process group of a process; 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def kill_group(group: int) -> None:
    """Kill the process group of a process that was just seen to belong to a lease.

    All of a group die at once, however fast they multiply. A group lies in one session, and
    sessions of leases hold nothing but leases' processes, so it is only ever theirs.
    """
    if group and group != os.getpgrp():
        _send(os.killpg, group, signal.SIGKILL)


def strike(pid: int, belongs: Callable[[int], bool], number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process if `belongs` still says that it is the one that is meant.

    Returns whether it was sent. Where the system has pidfds the answer and the signal concern the
    same process for certain: a pid reused in between belongs to nobody or is not hit.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # an old kernel, or another system
        return belongs(pid) and _send(os.kill, pid, number)
    try:
        return belongs(pid) and _send(signal.pidfd_send_signal, handle, number)
    finally:
        os.close(handle)


def _send(send: Callable[[int, int], object], target: int, number: int) -> bool:
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
