"""Ends what emulated machines leave running. Run as a program, it does so when its parent dies.

Standard library only: as a program it is started without site packages, to be quick.

Processes are known by a variable in their environment that names the folder of their machine,
which reaches everything that a machine starts, however far it detaches itself; sshd, which
overwrites its environment, by its configuration file; and the descendants of these.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "GPUBROKER_EMULATION"
_PROC = Path("/proc")


def processes_of(folders: set[str]) -> set[int]:
    """Every process of the machines in some folders. Finds none where there is no ``/proc``."""
    wanted = [f"{MARK}={folder}/".encode() for folder in folders]
    configured = [f"{folder}/".encode() for folder in folders]
    parents: dict[int, int] = {}
    found: set[int] = set()
    own = os.getpid()
    for entry in os.listdir(_PROC) if _PROC.is_dir() else ():  # noqa: PTH208 - as in _read
        if not entry.isdigit() or int(entry) == own:
            continue
        pid = int(entry)
        try:
            parents[pid] = _parent(pid)
            environment = _read(pid, "environ")
            arguments = _read(pid, "cmdline")
        except OSError:
            continue  # ended meanwhile, or another user's
        if any(mark in environment for mark in wanted) or (
            b"sshd" in arguments[:32] and any(path in arguments for path in configured)
        ):
            found.add(pid)
    return found | _descendants(found, parents)


def end_processes(folders: set[str]) -> None:
    """Kill every process of the machines in some folders, and those that they make meanwhile."""
    for _ in range(200):
        found = processes_of(folders)
        if not found:
            return
        # All of them stand still first: none is to see another one's end, and to act on it.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
        time.sleep(0.005)


def signal_processes(folder: str, number: signal.Signals) -> None:
    """Send a signal to every process of one machine."""
    for pid in processes_of({folder}):
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - many of them, often
        return file.read()


def _parent(pid: int) -> int:
    # The name of the program, in brackets, may hold anything.
    return int(_read(pid, "stat").rpartition(b")")[2].split()[1])


def _descendants(found: set[int], parents: dict[int, int]) -> set[int]:
    below: set[int] = set()
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found | below} - below - found
        below |= more
        grown = bool(more)
    return below


def main(root: str) -> None:
    """Wait until the emulator is gone, then leave nothing of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if os.path.isdir(root):  # noqa: PTH112 - as above
        end_processes({root})
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
