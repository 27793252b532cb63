"""Complete inventories of one provider, shared by everybody who waits for one.

However many leases boot, are released or are swept, there is one call at a time, and no more than
one per poll interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from gpubroker.errors import ProviderError
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.plugins import Provider
from gpubroker.policy.clock import Step, age

#: Seconds by which the wall clock and the event loop's may drift apart between two looks.
_DRIFT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one inventory call said.

    A reading with an `error` knows nothing: not that a machine is there, nor that it is gone.

    Attributes:
        number: counts the calls. asked_at: loop time of the call. wall: the same in Unix seconds.
        steps: how often the wall clock had gone forward by itself until then.
    """

    number: int
    asked_at: float
    wall: float
    machines: Mapping[str, Machine] = field(default_factory=dict[str, Machine])
    error: ProviderError | None = None
    steps: tuple[Step, ...] = ()

    def age(self, since: float) -> float:
        """Seconds from Unix time `since` to this reading; a clock that was set adds nothing."""
        return age(since, self.wall, self.steps)

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
        self._ahead = now() - anyio.current_time()
        self._steps: tuple[Step, ...] = ()

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
            self._notice_step()
            began, wall = anyio.current_time(), self._now()
            asked = Reading(self._asked, began, wall, steps=self._steps)
            try:
                machines = await self._provider.inventory()
            except ProviderError as error:
                self._last = replace(asked, error=error)
            else:
                self._last = replace(asked, machines={m.id: m for m in machines})
            return self._last

    def age(self, since: float) -> float:
        """Seconds since a Unix time; a wall clock that was set adds nothing to it."""
        self._notice_step()
        return age(since, self._now(), self._steps)

    def _notice_step(self) -> None:
        ahead = self._now() - anyio.current_time()
        seconds, self._ahead = ahead - self._ahead, ahead
        if seconds > _DRIFT:
            self._steps = (*self._steps, Step(self._now() - seconds, seconds))
