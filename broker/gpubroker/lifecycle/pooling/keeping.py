"""One machine of a pool from its beginning to its end: rented or taken, prepared, watched, given up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from gpubroker.errors import BrokerError, StaleOwner
from gpubroker.lifecycle.lease_files import KeptReach
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.lifecycle.leasing.restoring import reached
from gpubroker.lifecycle.leasing.running import LetGo, run_on
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.pooling.member import Member
from gpubroker.lifecycle.pooling.sharing import Shared
from gpubroker.lifecycle.pooling.terms import Health, PoolTerms
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.lifecycle.renting.acquire import Acquisition
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.policy.pool import Standing
from gpubroker.transport.blocks import background

if TYPE_CHECKING:
    from gpubroker.lifecycle.leasing.service import AsyncServer

#: Seconds between two questions to an idle machine whether it is well, and for an answer.
_HEALTH_EVERY: Final = 60.0
_HEALTH_WITHIN: Final = 30.0
#: Seconds within which a machine that was taken must be reached: meanwhile it bills for nobody.
_REACHED_WITHIN: Final = 120.0

Bring = Callable[[Member], Awaitable[AsyncLease]]


class Keeper:
    """Keeps machines for one pool."""

    def __init__(
        self,
        parts: Parts,
        supervisor: Supervisor,
        terms: PoolTerms,
        shared: Shared,
        release_wait: float,
        *,
        on_ready: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._terms = terms
        self._shared = shared
        self._release_wait = release_wait
        self._on_ready = on_ready
        self._on_change = on_change

    async def keep(self, member: Member, bring: Bring) -> None:
        """Have a machine until it is given up or lost, and given up then.

        Raises:
            StaleOwner: another process has ended it before it was of use here.
            BrokerError, OSError: there is no machine, or it is of no use.
        """
        async with await bring(member) as lease:
            try:
                await self._prepare(member, lease)
                async with self._served(member, lease):
                    if not member.over.is_set():
                        member.ready(self._parts.now())
                        self._on_ready()
                    await member.over.wait()
            except OSError as error:
                # The folder of a lease goes when the lease is over, and not before.
                files = self._parts.files
                if files is None or files.lease(lease.id) is not None:
                    raise
                raise StaleOwner(f"lease {lease.id} was ended by another process") from error
            finally:
                member.standing = Standing.LEAVING

    async def rented(self, member: Member) -> AsyncLease:
        """A machine that is rented for the pool.

        Raises:
            AcquireError: there is none.
        """
        began = anyio.current_time()
        acquisition = Acquisition(self._parts, self._supervisor, self._terms.wish)
        hold, requirements = await acquisition.machine()
        lease = AsyncLease(
            self._parts,
            self._supervisor,
            hold,
            requirements=requirements,
            record=acquisition.record,
            acquire_seconds=anyio.current_time() - began,
            release_wait=self._release_wait,
            at_a_time=self._terms.rules.jobs_per_machine,
        )
        member.got(lease, hold)
        return lease

    async def taken(self, row: LeaseRow, member: Member) -> AsyncLease:
        """A machine that another process has parked.

        Raises:
            StaleOwner: somebody else was quicker.
            LedgerError: it is to be given up, or cannot be taken from here.
        """
        hold, charged = await self._shared.take(row)
        hold.allowance = self._terms.wish.allowance
        lease = AsyncLease(
            self._parts,
            self._supervisor,
            hold,
            requirements=self._terms.wish.wanted[0],
            record=DecisionRecord(id=row.request_id, wanted="", asked_at=row.created_at),
            acquire_seconds=0.0,
            release_wait=self._release_wait,
            at_a_time=self._terms.rules.jobs_per_machine,
            charged=charged,
        )
        member.got(lease, hold)
        return lease

    async def _prepare(self, member: Member, lease: AsyncLease) -> None:
        """Set a new machine up, or find the way to one that was taken; and note that way for others.

        Raises:
            SetupFailed: it is of no use.
            LetGo: another process has taken it meanwhile.
            OSError: what others need to take it cannot be kept; or one that was taken is not reached.
        """
        hold, files = member.hold, self._parts.files
        assert hold is not None
        if hold.row.state is LeaseState.PROVISIONING:
            await lease.set_up()
        else:
            with anyio.fail_after(_REACHED_WITHIN):
                await reached(self._parts, hold)
        if files is not None:
            keys = () if hold.link is None else hold.link.host_keys
            files.put_reach(lease.id, KeptReach(host_keys=keys, host_identity=lease.host_identity))

    @asynccontextmanager
    async def _served(self, member: Member, lease: AsyncLease) -> AsyncGenerator[None]:
        """Have the pool's service on it, and watch over both, while the block lasts.

        Raises:
            ServiceFailed: it does not get ready.
        """
        terms = self._terms
        async with AsyncExitStack() as stack:
            if terms.service is not None:
                member.server = await stack.enter_async_context(lease.service(terms.service))
                await self._note_ready(member)
            tasks = await stack.enter_async_context(background())
            if member.server is not None:
                tasks.start_soon(self._watch_server, member, member.server)
            if terms.health is not None:
                tasks.start_soon(self._watch_health, member, lease, terms.health)
            yield

    async def _note_ready(self, member: Member) -> None:
        """A cold start ends when the service answers, not when the machine is set up."""
        assert member.hold is not None
        row, at = member.hold.row, self._parts.now()
        if row.state is LeaseState.READY:
            noted = await self._parts.ledger(
                lambda ledger: ledger.note(row, at, "serving", ready_at=at)
            )
            member.hold.update(noted)

    async def _watch_server(self, member: Member, server: AsyncServer) -> None:
        self._found_wrong(member, str(await server.wait_failed()))

    async def _watch_health(self, member: Member, lease: AsyncLease, health: Health) -> None:
        """Ask an idle machine every so often; one that is not well gets no more work."""
        while not member.wrong:
            await anyio.sleep(_HEALTH_EVERY)
            if member.standing not in (Standing.FREE, Standing.PARKED):
                continue
            well = False
            with anyio.move_on_after(_HEALTH_WITHIN):
                well = await self._is_well(member, lease, health)
            if not well and not member.over.is_set():
                self._found_wrong(member, "it does not answer that it is well")

    async def _is_well(self, member: Member, lease: AsyncLease, health: Health) -> bool:
        try:
            if callable(health):
                return await self._says_so(health, lease)
            assert member.hold is not None
            run = await run_on(
                self._parts,
                member.hold,
                Job(health, timeout=_HEALTH_WITHIN),
                job_id=self._parts.new_id("probe"),
                env={},
                destination=Path(),
                purpose="probe",
            )
            return run.outcome.exit_code == 0
        except (BrokerError, OSError, LetGo):
            return False

    async def _says_so(
        self, health: Callable[[AsyncLease], Awaitable[bool]], lease: AsyncLease
    ) -> bool:
        try:
            return await health(lease)
        except Exception as error:  # noqa: BLE001 - a check that fails must end no job
            problem = f"its health check failed: {type(error).__name__}: {error}"
            self._parts.emit(EventKind.FAILED, problem, lease_id=lease.id)
            return False

    def _found_wrong(self, member: Member, why: str) -> None:
        member.wrong = member.wrong or why
        self._parts.emit(EventKind.FAILED, f"{member.id}: {why}", lease_id=member.id)
        self._on_change()
