"""The real broker in a simulated process: what it touches goes through that process."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.errors import LedgerBusy, LedgerUnusable
from gpubroker.hookspecs import AccountSettings, Emit, hookimpl
from gpubroker.ledger.access import LedgerAccess
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.rows import Owner
from gpubroker.lifecycle.lease_files import LeaseFiles
from gpubroker.lifecycle.owner import Identity
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.charges import Charge
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.offers import Offer
from gpubroker.model.results import Outcome
from gpubroker.plugins import Plugin
from gpubroker.testing.scripted import ScriptedCloud, ScriptedPlugin
from gpubroker.testing.simulation.world import Process
from gpubroker.transport.job_io import JobIO

#: Seconds of waiting for a locked ledger; short, since each look costs a step.
_PATIENCE: Final = 0.2

#: Told of each write: the process, the method of `Ledger`, and its arguments.
Witness = Callable[[Process, str, tuple[Any, ...]], None]

#: Told of each request just before it reaches a cloud: the process, the cloud, and the order or
#: the id of the machine to be destroyed.
Observer = Callable[[Process, ScriptedCloud, Order | str], None]


@dataclass(frozen=True, slots=True)
class SimulatedIdentity(Identity):
    """One broker in one simulated process, whose number is in `started`."""

    process: Process = field(kw_only=True)

    @property
    def here(self) -> bool:
        """Simulated processes do not fork."""
        return True

    def runs(self, owner: Owner) -> bool:
        """Whether the owner's process has not ended yet."""
        process = self.process.world.processes[int(owner.started) - 1]
        return not process.ended and not process.killed


class SimulatedBroker(AsyncBroker):
    """A broker whose identity and ledger are those of a simulated process.

    Args:
        witness: told of each operation on the ledger, once it is done.
    """

    def __init__(self, process: Process, witness: Witness, **options: Any) -> None:
        super().__init__(**options)
        self._process = process
        self._witness = witness

    async def _open_parts(self, stack: AsyncExitStack) -> Parts:
        parts = await super()._open_parts(stack)
        process, real = self._process, parts.identity
        parts.identity = SimulatedIdentity(
            real.id, process.host, real.pid, str(process.number), process=process
        )
        if parts.files is not None:
            parts.files = FilesOfHost(parts.files.root.with_name(f"{process.host}.leases"), process)
        ledger = cast("Ledger", LedgerOfProcess(_ledger_of(parts), process, self._witness))
        parts.ledger = LedgerAccess(ledger, patience=_PATIENCE, source=parts.source)
        return parts


def _ledger_of(parts: Parts) -> Ledger:
    """The ledger that was opened."""
    return parts.ledger.at_once(lambda ledger: ledger)


class FilesOfHost(LeaseFiles):
    """What heirs need, on the host of a process: other hosts' processes do not find it.

    When a folder has changed is told in simulated time.
    """

    def __init__(self, root: Path, process: Process) -> None:
        super().__init__(root)
        self._process = process

    def _put(self, lease_id: str, name: str, text: str) -> None:
        super()._put(lease_id, name, text)
        now = self._process.world.wall_clock()
        os.utime(self._folder(lease_id), (now, now))

    def made(self) -> list[tuple[str, float]]:
        """The leases that have a folder, in an order that is always the same."""
        return sorted(super().made())


#: Methods of `Ledger` that write what matters. Who waits for a pool's machine says so again and
#: again; among those, no other moment would be found.
_WRITES = frozenset(
    {
        "put_owner",
        "reserve",
        "move",
        "note",
        "request_release",
        "request_drain",
        "claim_alerts",
        "take_over",
        "adopt",
        "settle",
        "begin_job",
        "end_job",
        "put_record",
        "put_swept",
        "extend",
        "park",
        "take",
    }
)


class LedgerOfProcess:
    """A ledger that ends and stops with a process, and fails when that process is told to."""

    def __init__(self, ledger: Ledger, process: Process, witness: Witness) -> None:
        self._ledger = ledger
        self._process = process
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._ledger, name)
        if not callable(member):
            return member
        process, writes = self._process, name in _WRITES

        def operation(*arguments: Any, **named: Any) -> Any:
            if writes:
                process.operation(f"ledger.{name}")
            process.check_alive()
            if process.world.time < process.ledger_busy_until:
                raise LedgerBusy("the ledger is held by another process")
            if process.world.time < process.ledger_broken_until:
                raise LedgerUnusable("the ledger cannot be used: disk I/O error")
            result = member(*arguments, **named)
            if writes:
                self._witness(process, name, arguments)
                process.operation(f"ledger.{name}", after=True)
            return result

        return operation


class Wire:
    """The way from one process to one cloud: a plugin whose calls end and stop with the process.

    Args:
        latency: the longest time that a request, and an answer, is under way.
        observer: told of creates and destroys.
    """

    def __init__(
        self,
        process: Process,
        cloud: ScriptedCloud,
        plugin: ScriptedPlugin,
        latency: float,
        observer: Observer,
    ) -> None:
        self._process = process
        self._cloud = cloud
        self._plugin = plugin
        self._latency = latency
        self._observer = observer
        self._source = random.Random(f"{process.name} {cloud.name}")  # noqa: S311

    @property
    def facts(self) -> ProviderFacts:
        """What the cloud declares about itself."""
        return self._plugin.facts

    async def _under_way(self) -> None:
        if self._latency:
            await anyio.sleep(round(self._source.uniform(0.0, self._latency), 3))
        self._process.check_alive()

    @hookimpl
    async def quote(self) -> Sequence[Offer]:
        """See `gpubroker.hookspecs.quote`."""
        self._process.check_alive()
        return await self._plugin.quote()

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """See `gpubroker.hookspecs.provision`."""
        process = self._process
        process.operation(f"{self._cloud.name}.provision")
        await self._under_way()
        self._observer(process, self._cloud, order)
        machine = await self._plugin.provision(offer, order)
        await self._under_way()
        process.operation(f"{self._cloud.name}.provision", after=True)
        return machine

    @hookimpl
    async def inventory(self) -> Sequence[Machine]:
        """See `gpubroker.hookspecs.inventory`."""
        self._process.check_alive()
        machines = await self._plugin.inventory()
        await self._under_way()
        return machines

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """See `gpubroker.hookspecs.run`."""
        process = self._process
        process.operation(f"{self._cloud.name}.run")
        outcome = await self._plugin.run(machine, job, io)
        process.operation(f"{self._cloud.name}.run", after=True)
        return outcome

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """See `gpubroker.hookspecs.release`."""
        process = self._process
        process.operation(f"{self._cloud.name}.release")
        await self._under_way()
        self._observer(process, self._cloud, machine.id)
        await self._plugin.release(machine)
        await self._under_way()
        process.operation(f"{self._cloud.name}.release", after=True)

    @hookimpl
    async def charges(self) -> Sequence[Charge]:
        """See `gpubroker.hookspecs.charges`."""
        self._process.check_alive()
        return await self._plugin.charges()


def plugin_for(
    process: Process,
    cloud: ScriptedCloud,
    latency: float,
    observer: Observer,
) -> Plugin:
    """The plugin by which a process reaches a cloud."""

    def factory(settings: AccountSettings, emit: Emit) -> Wire:
        return Wire(process, cloud, cloud.factory(settings, emit), latency, observer)

    return Plugin(cloud.name, factory, "simulation", given=True)
