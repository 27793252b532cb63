"""Complete inventories of one provider, shared by everybody who waits for one.

However many leases boot, are released or are swept, there is one call at a time, and no more than
one per poll interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import anyio

from gpubroker.errors import ProviderError
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.plugins import Provider


@dataclass(frozen=True, slots=True)
class Reading:
    """What one inventory call said.

    A reading with an `error` knows nothing: not that a machine is there, nor that it is gone.

    Attributes:
        number: counts the calls. asked_at: loop time of the call. wall: the same in Unix seconds.
    """

    number: int
    asked_at: float
    wall: float
    machines: Mapping[str, Machine] = field(default_factory=dict[str, Machine])
    error: ProviderError | None = None

    def find(self, machine_id: str | None, mark: str) -> Machine | None:
        """The living machine with this id, or else with this mark."""
        machine = self.machines.get(machine_id or "")
        if machine is None and machine_id is None:
            machine = next(
                (
                    m
                    for m in self.machines.values()
                    if (found := Mark.find(m.mark)) is not None and str(found) == mark
                ),
                None,
            )
        return None if machine is None or machine.state is MachineState.GONE else machine


class Readings:
    """The inventories of one provider."""

    def __init__(self, provider: Provider, now: Callable[[], float]) -> None:
        self._provider = provider
        self._now = now
        self._turn = anyio.Lock()
        self._last: Reading | None = None
        self._asked = 0

    async def next(self) -> Reading:
        """The first reading that is asked for from now on, or later."""
        seen = self._asked
        async with self._turn:
            last = self._last
            if last is not None:
                if last.number > seen:
                    return last
                pause = last.asked_at + self._provider.facts.poll_interval - anyio.current_time()
                if pause > 0:
                    await anyio.sleep(pause)
            self._asked += 1
            asked = Reading(self._asked, anyio.current_time(), self._now())
            try:
                machines = await self._provider.inventory()
            except ProviderError as error:
                self._last = replace(asked, error=error)
            else:
                self._last = replace(asked, machines={m.id: m for m in machines})
            return self._last
