"""Which process holds a lease, and whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gpubroker.ledger.rows import Owner

OWNER_TTL = 60.0
"""Seconds for which an owner's word counts after its last heartbeat."""

HEARTBEAT = 15.0
"""Seconds between two heartbeats."""

SILENCE = 120.0
"""Seconds for which a process that is there, but silent, is taken for busy and not for hung."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One broker in one process on one running system."""

    id: str
    host: str
    pid: int
    started: str

    @classmethod
    def own(cls, owner_id: str) -> Self:
        """This process."""
        return cls(owner_id, _running_system(), os.getpid(), _started(os.getpid()) or "")

    def row(self, now: float, *, closed: bool = False) -> Owner:
        """The owner row as of Unix time `now`."""
        return Owner(
            id=self.id,
            host=self.host,
            pid=self.pid,
            started=self.started,
            expires_at=now if closed else now + OWNER_TTL,
            closed_at=now if closed else None,
        )

    @property
    def here(self) -> bool:
        """Whether the process that asks is this one, and not the child of a fork."""
        return self.pid == os.getpid()

    def runs(self, owner: Owner) -> bool:
        """Whether this very system has the owner's process."""
        if owner.pid == self.pid and self.here:
            return owner.started == self.started  # without a look: it is us who ask
        return _started(owner.pid) == owner.started

    def alive(self, owner: Owner | None, now: float) -> bool | None:
        """Whether `owner` lives: ``True``, ``False`` for certainly not, ``None`` for no sign.

        A process of this very system can be looked up; its absence is certain, and its presence
        a second sign of life. Of any other only the heartbeat is known, and a missing one may
        only be late. One that is further ahead than any can be tells of a clock that was set
        back, and of nothing else.
        """
        if owner is None:
            return None
        if owner.closed_at is not None:
            return False
        here = owner.host == self.host
        if here and not self.runs(owner):
            return False
        until = owner.expires_at + (SILENCE if here else 0.0)
        possible = here or owner.expires_at <= now + OWNER_TTL + SILENCE
        return True if now <= until and possible else None


def _running_system() -> str:
    """Names this running system; a reboot changes it where the system says so."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}/{boot}/{_namespace()}"


def _namespace() -> str:
    """Process numbers mean something only within one such namespace."""
    try:
        return Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """When process `pid` started, in a unit of the system's own; ``None`` if there is none.

    Where the system does not say, any living process of that number has started at "".
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        return "" if _exists(pid) else None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
