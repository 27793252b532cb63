"""A rule-based state machine for hypothesis: any provider, or any app's broker, can be put into it.

Leases are taken, used, left and abandoned; the program crashes and is started again; time passes;
vendors do what they should not. After each step the clouds' own books are asked whether every
promise was kept, and at the end whether anything is left::

    class TestMyApp(BrokerStateMachine.TestCase):
        settings = settings(max_examples=50, stateful_step_count=20)

To put something of one's own into it, override `plugin` or `open_broker`.
"""

# Each life of the program is an event loop in virtual time that runs only while a rule does. A crash
# is a loop that is not run again before the books were judged.

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpubroker.broker import AsyncBroker
from gpubroker.errors import BrokerError
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.model.money import Money
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Plugin
from gpubroker.policy.budget import Budget
from gpubroker.testing.fault_schedules import Fault
from gpubroker.testing.scenarios import market
from gpubroker.testing.scripted import ScriptedCloud
from gpubroker.testing.strategies import faults
from gpubroker.testing.virtual_time import VirtualEventLoop, VirtualWallClock

T = TypeVar("T")

#: Seconds of healthy time within which a machine that nobody holds any more is gone.
BOUND: Final = 300.0
_WANTED: Final = Requirements(gpu="RTX 4090")


class _Program:
    """One life of the program under test: an event loop, a broker, and the leases in hand."""

    def __init__(self, broker: AsyncBroker) -> None:
        self.loop = VirtualEventLoop()
        self.leases: list[tuple[AsyncLease, asyncio.Event, asyncio.Task[None]]] = []
        self._open, self._leave = asyncio.Event(), asyncio.Event()
        self.broker = broker
        self._life = self.loop.create_task(self._live())
        self.run(self._opened())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out `work`; time passes only meanwhile."""
        return self.loop.run_until_complete(work)

    async def _live(self) -> None:
        async with self.broker:
            self._open.set()
            await self._leave.wait()

    async def _opened(self) -> None:
        opened = asyncio.ensure_future(self._open.wait())
        await asyncio.wait({opened, self._life}, return_when=asyncio.FIRST_COMPLETED)

    async def acquire(self, lifetime: float) -> None:
        """Take a lease and keep it."""
        held: asyncio.Future[AsyncLease] = self.loop.create_future()
        leave = asyncio.Event()

        async def hold() -> None:
            try:
                async with self.broker.lease(_WANTED, lifetime=lifetime) as lease:
                    held.set_result(lease)
                    await leave.wait()
            except BrokerError:
                if not held.done():
                    held.cancel()

        task = self.loop.create_task(hold())
        await asyncio.wait({held})
        if not held.cancelled():
            self.leases.append((held.result(), leave, task))

    async def leave(self, number: int) -> None:
        """Leave a lease."""
        _, leave, task = self.leases.pop(number)
        leave.set()
        await asyncio.wait({task})

    async def close(self) -> None:
        """Leave everything, as a program does that ends."""
        while self.leases:
            await self.leave(0)
        self._leave.set()
        await self._life

    def end(self) -> None:
        """Undo what a crash left standing, once nobody looks any more."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.run(_all(tasks))
        self.loop.close()


async def _all(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


class BrokerStateMachine(RuleBasedStateMachine):
    """A broker, its program, and a cloud, in whatever order things happen.

    Attributes:
        DAY: USD that all of it may cost.
        cloud: the vendor, with its books.
    """

    DAY: ClassVar[Money] = Money(2)

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="gpubroker-state-machine-")
        self.now = VirtualWallClock()
        self.cloud = ScriptedCloud("scripted", now=self.now, offers=market())
        self.cloud.foreign_machine("stranger")
        self.program: _Program | None = None
        self._lives: list[_Program] = []

    # ---- what is put to the test -----------------------------------------------------------

    def plugin(self) -> Plugin:
        """The provider, which reaches `cloud`."""
        return Plugin(self.cloud.name, self.cloud.factory, "state machine", given=True)

    def open_broker(self, **options: Any) -> AsyncBroker:
        """A broker with these options of `AsyncBroker`; not entered yet."""
        return AsyncBroker(**options)

    # ---- the program -----------------------------------------------------------------------

    @initialize()
    def start(self) -> None:
        """The program starts."""
        broker = self.open_broker(
            ledger=Path(self._folder.name) / "ledger.db",
            budget=Budget(day=self.DAY),
            plugins=[self.plugin()],
            now=self.now,
            seed=len(self._lives),
            close_wait=BOUND,
        )
        self.program = _Program(broker)
        self._lives.append(self.program)

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        assert self.program is not None
        self.program.run(work)

    @precondition(lambda self: self.program is not None)
    @rule(lifetime=st.sampled_from([600.0, 120.0, 3600.0]))
    def acquire(self, lifetime: float) -> None:
        """A lease is taken, if there is one to be had."""
        assert self.program is not None
        self._run(self.program.acquire(lifetime))

    @precondition(lambda self: self.program is not None)
    @rule(seconds=st.sampled_from([0.0, 60.0, 900.0]))
    def job(self, seconds: float) -> None:
        """A job is run on a machine of its own."""
        assert self.program is not None
        self.cloud.job_takes(seconds)
        self._run(_whatever(self.program.broker.run(["job"], _WANTED, lifetime=1200.0)))

    @precondition(lambda self: self.program is not None and self.program.leases)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        """A job is run on a lease in hand."""
        assert self.program is not None
        lease = data.draw(st.sampled_from(self.program.leases))[0]
        self._run(_whatever(lease.run(["job"])))

    @precondition(lambda self: self.program is not None and self.program.leases)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A lease is left."""
        assert self.program is not None
        self._run(self.program.leave(data.draw(st.integers(0, len(self.program.leases) - 1))))

    @precondition(lambda self: self.program is not None)
    @rule()
    def crash(self) -> None:
        """The program is gone, without a last word."""
        self.program = None

    @precondition(lambda self: self.program is None)
    @rule()
    def start_again(self) -> None:
        """It is started again, on the same ledger."""
        self.start()

    @precondition(lambda self: self.program is not None)
    @rule()
    def sweep(self) -> None:
        """Somebody looks for what was left behind."""
        assert self.program is not None
        self._run(_whatever(self.program.broker.sweep()))

    @precondition(lambda self: self.program is not None)
    @rule(seconds=st.sampled_from([10.0, 90.0, 1200.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self._run(asyncio.sleep(seconds))

    # ---- the vendor ------------------------------------------------------------------------

    @rule(fault=faults())
    def fault(self, fault: Fault) -> None:
        """Something will go wrong."""
        fault.tell(self.cloud)

    # ---- what must hold --------------------------------------------------------------------

    @invariant()
    def one_create_for_each_mark(self) -> None:
        """No create is sent twice, no job started twice."""
        self.cloud.assert_contract_kept()

    @invariant()
    def no_friendly_fire(self) -> None:
        """Only machines that were made for us are destroyed."""
        strangers = {machine.id for machine in self.cloud.machines.values() if machine.foreign}
        asked = [request.machine_id for request in self.cloud.destroys]
        assert not strangers.intersection(asked), f"asked to destroy {strangers & set(asked)}"

    @invariant()
    def no_overspending(self) -> None:
        """All machines together cost no more than the limit."""
        assert self.cloud.billed <= self.DAY, f"{self.cloud.billed} of {self.DAY} was billed"

    def teardown(self) -> None:
        """Everything works again: within `BOUND` seconds nothing is left."""
        try:
            self._end()
        finally:
            self._forget()

    def _end(self) -> None:
        self.cloud.all_is_well()
        if not self._lives:
            return
        if self.program is None:
            self.start()
        program = cast("_Program", self.program)
        while program.leases:
            program.run(program.leave(0))
        program.run(asyncio.sleep(BOUND))
        self.cloud.assert_nothing_running()
        program.run(program.close())

    def _forget(self) -> None:
        for life in self._lives:
            life.end()
        self._folder.cleanup()


async def _whatever(work: Coroutine[Any, Any, object]) -> None:
    """Carry it out; that it fails is one of the things that may happen."""
    with suppress(BrokerError):
        await work
