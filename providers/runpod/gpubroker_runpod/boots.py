"""What is known of pods that this provider ordered, besides what their rows say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

from gpubroker import Machine, MachineState, Mark
from gpubroker.rest import Row, one_line, rows
from gpubroker_runpod.pods import gpus_of
from gpubroker_runpod.vocabulary import PULL_FAILURES

PAUSE: Final = 20.0
"""Least seconds between two looks at the system's log of one pod that boots."""

DARK: Final = 180.0
"""Seconds for which nothing is seen of a container that ran before, after which it is dead."""

_MOST: Final = 1000
_RESTARTS: Final = 3
#: Seconds that two answers may differ by in telling the same moment.
_SAME: Final = 2.0
_SHOWN: Final = 160


@dataclass
class _Boot:
    """One pod.

    Attributes:
        looked_at: when its system log was looked at last, or it was seen first.
        started: when its container was started last; restarts: how often that has changed.
        said: the last line of its system log. failure: why it will not come up.
        used: the machine as it was when work was first sent to it.
        ran: its container was seen to run. dark: when it was seen no more.
    """

    looked_at: float
    started: str = ""
    restarts: int = 0
    said: str = ""
    failure: str = ""
    used: Machine | None = None
    ran: bool = False
    dark: float | None = None


@dataclass
class Boots:
    """Finds pods that will not come up, or have broken down, although their rows do not say so."""

    _ordered: dict[str, int] = field(default_factory=dict[str, int])
    _pods: dict[str, _Boot] = field(default_factory=dict[str, _Boot])

    def ordered(self, mark: str, gpus: int) -> None:
        """A pod is about to be ordered; it is known by its mark until it has an id."""
        self._ordered[mark] = gpus
        if len(self._ordered) > _MOST:
            del self._ordered[next(iter(self._ordered))]

    def judge(self, machine: Machine, row: Row, now: float) -> Machine:
        """A machine as its row says, and in view of all that was seen of it before.

        Args:
            now: seconds of a clock that never goes back.
        """
        found = Mark.find(machine.mark)
        wanted = None if found is None else self._ordered.get(str(found))
        if wanted is None or machine.state not in (MachineState.BOOTING, MachineState.RUNNING):
            return machine
        boot = self._pods.setdefault(machine.id, _Boot(now))
        started = machine.details.get("started", "")
        if started and started != boot.started:
            boot.restarts += bool(boot.started)
            boot.started = started
        gpus = None
        if machine.state is MachineState.RUNNING:
            boot.ran, boot.dark, gpus = True, None, gpus_of(row)
        elif boot.ran and boot.dark is None:
            boot.dark = now
        if gpus is not None and gpus < wanted:
            boot.failure = f"it has {gpus} GPUs, and {wanted} were ordered"
        elif boot.restarts >= _RESTARTS:
            boot.failure = f"its container has been started again {boot.restarts} times"
        elif boot.used is not None and _began_anew(boot.used, machine):
            boot.failure = "its container was started again under its work"
        elif boot.dark is not None and now - boot.dark >= DARK:
            boot.failure = f"nothing has been seen of its container for {now - boot.dark:.0f} s"
        if boot.failure:
            return replace(machine, state=MachineState.BROKEN, progress=boot.failure)
        if machine.state is MachineState.BOOTING and boot.said:
            return replace(machine, progress=f"{machine.progress}: {boot.said}")
        return machine

    def used(self, machine: Machine) -> None:
        """Work is sent to a machine over SSH: started again, it has another port, and other keys."""
        boot = self._pods.get(machine.id)
        if boot is not None:
            boot.used = boot.used or machine

    def due(self, machine: Machine, now: float) -> bool:
        """Whether to look at the system log of a machine now; if so, that counts as a look."""
        boot = self._pods.get(machine.id)
        if boot is None or machine.state is not MachineState.BOOTING:
            return False
        if now - boot.looked_at < PAUSE:
            return False
        boot.looked_at = now
        return True

    def saw(self, machine_id: str, log: str) -> None:
        """Take in the end of a pod's system log."""
        boot = self._pods.get(machine_id)
        lines = [one_line(line) for line in log.splitlines() if line.strip()]
        if boot is None or not lines:
            return
        boot.said = lines[-1][:_SHOWN]
        for line in reversed(lines):
            if any(phrase in line.lower() for phrase in PULL_FAILURES):
                boot.failure = line[:_SHOWN]
                return

    def keep(self, listed: Collection[str]) -> None:
        """Forget the pods that a complete listing has no more."""
        for machine_id in self._pods.keys() - set(listed):
            del self._pods[machine_id]


def _began_anew(before: Machine, now: Machine) -> bool:
    """Whether the container was started again: that moment has moved, or every way there has."""
    first, last = (rows.moment(machine.details, "started") for machine in (before, now))
    if first is not None and last is not None and last - first > _SAME:
        return True
    return bool(before.routes and now.routes) and not set(before.routes) & set(now.routes)
