"""Wait for a machine to come up, and make sure that it is what was ordered."""

from __future__ import annotations

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.readings import Reading
from gpubroker.lifecycle.releasing.prices import risen
from gpubroker.model.events import EventKind
from gpubroker.model.machines import Machine, MachineState


async def wait_until_running(parts: Parts, hold: Hold) -> None:
    """Return once the provider says that the machine runs, at the price that was agreed.

    One that is reached over SSH must have answered there too: what the provider says of it is not
    enough. A free provider's machine is ready when ``provision`` returns.

    Raises:
        ProviderError: it broke, vanished, made no progress for the provider's boot time-out,
            costs more than agreed, or is not the machine that was rented.
    """
    if not hold.provider.facts.paid:
        return
    boot = _Boot(parts, hold)
    while not await boot.advanced(await parts.readings[hold.provider.name].next()):
        boot.check_patience()


class _Boot:
    """What has been seen so far of one machine that comes up."""

    def __init__(self, parts: Parts, hold: Hold) -> None:
        self._parts = parts
        self._hold = hold
        self._progress: str = ""
        self._since = anyio.current_time()
        self._running_since: float | None = None
        self._absent = 0
        self._last_absent = float("-inf")
        self._unreached = ""

    async def advanced(self, reading: Reading) -> bool:
        """Take one reading in; returns whether the machine is up."""
        if reading.error is not None:
            if reading.error.kind is ErrorKind.AUTH:
                raise reading.error
            return False
        machine = reading.find(self._hold.row.machine_id, self._hold.row.mark)
        if machine is None:
            self._count_absence(reading)
            return False
        self._absent, self._last_absent = 0, float("-inf")
        self._hold.machine = machine
        self._note_progress(machine)
        # As soon as it is seen, since it bills at that price already.
        now = self._parts.now()
        if (dearer := await risen(self._parts, self._hold, machine, until=now)) is not None:
            raise _broken(dearer)
        if machine.state in (MachineState.BROKEN, MachineState.STOPPED):
            raise _broken(
                f"the machine is {machine.state}: {machine.progress or 'no reason given'}"
            )
        return machine.state is MachineState.RUNNING and await self._answers(machine)

    def check_patience(self) -> None:
        """Give up a machine that has made no progress for too long."""
        limit = self._hold.provider.facts.boot_timeout
        if anyio.current_time() - self._since > limit:
            last = f"; {self._unreached}" if self._unreached else ""
            raise _broken(f"no progress for {limit:g} s while booting{last}")

    def _count_absence(self, reading: Reading) -> None:
        facts = self._hold.provider.facts
        if reading.age(self._hold.row.created_at) < facts.visibility_horizon:
            return
        # Two looks in quick succession are one look.
        if reading.asked_at - self._last_absent >= facts.absence_interval:
            self._absent, self._last_absent = self._absent + 1, reading.asked_at
        if self._absent >= facts.absence_readings:
            raise _broken("the machine vanished while it booted")

    def _note_progress(self, machine: Machine) -> None:
        if machine.progress != self._progress:
            self._progress, self._since = machine.progress, anyio.current_time()
            self._emit(machine.progress)

    async def _answers(self, machine: Machine) -> bool:
        """Whether a machine that runs, by its provider's word, is there to be used."""
        now, link = anyio.current_time(), self._hold.link
        if self._running_since is None:
            self._running_since = self._since = now
        if link is None:
            return True
        why = await link.reach(self._hold.provider, machine, now - self._running_since)
        if why and why != self._unreached:
            self._emit(f"it runs, and is not reached yet: {why}")
        self._unreached = why
        return not why

    def _emit(self, text: str) -> None:
        hold = self._hold
        self._parts.emit(EventKind.BOOTING, text, provider=hold.provider.name, lease_id=hold.row.id)


def _broken(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
