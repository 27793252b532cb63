"""The heart of a pool: look, decide, carry out, and look again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio

from gpubroker.errors import (
    BrokerClosed,
    BudgetExceeded,
    InvalidValue,
    LeaseReleased,
    LedgerError,
    PoolFull,
    StaleOwner,
)
from gpubroker.ledger.ledger import NoPlace, OverLimit
from gpubroker.lifecycle.leasing.running import LetGo
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.pooling.idling import Idling
from gpubroker.lifecycle.pooling.keeping import Keeper
from gpubroker.lifecycle.pooling.member import Member, Waiter
from gpubroker.lifecycle.pooling.sharing import Shared
from gpubroker.lifecycle.pooling.terms import PoolTerms
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow
from gpubroker.model.pools import PoolStatus
from gpubroker.policy.backoff import delay
from gpubroker.policy.pool import (
    HORIZON,
    KEPT,
    LOOK,
    POLL,
    RENEW,
    PoolSteps,
    PoolView,
    Standing,
    decide,
)

#: Seconds for which a wait that is on record counts without being said again.
_WAIT_COUNTS = 3.0
#: Seconds for which a result waits until its machine is parked, so that others find it.
_A_MOMENT = 1.0
#: Seconds for which nothing can be decided, after which idle limits are seen to without deciding.
_BLIND = 60.0


class Serving:
    """One open pool of one broker.

    Attributes:
        queue: who waits, the first comer first.
        members: the machines in this process's hands.
    """

    def __init__(
        self, parts: Parts, supervisor: Supervisor, terms: PoolTerms, release_wait: float
    ) -> None:
        self.terms = terms
        self.queue: list[Waiter] = []
        self.members: list[Member] = []
        self._parts = parts
        self._supervisor = supervisor
        self._shared = Shared(
            parts, supervisor, terms.share, terms.rules, follows=terms.service is not None
        )
        self._idling = Idling(parts, terms)
        self._keeper = Keeper(
            parts,
            supervisor,
            terms,
            self._shared,
            release_wait,
            on_ready=self._works,
            on_change=self.look,
        )
        self._changed = anyio.Event()
        self._after = anyio.Event()
        self._begun = self._ended = 0
        self._others = False
        self._failures = 0
        self._blind_since: float | None = None
        self._useless = 0
        self._rent_after = self._warm_after = float("-inf")
        self._closing = False

    def now(self) -> float:
        """Unix seconds."""
        return self._parts.now()

    async def looked(self) -> None:
        """Wait until what is so now has been acted on, for a moment at the most."""
        wanted = self._begun + 1
        self.look()
        with anyio.move_on_after(_A_MOMENT):
            while self._ended < wanted:
                await self._after.wait()

    def look(self) -> None:
        """Something has changed: decide anew. Does not await."""
        self._changed.set()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Serve for as long as the block lasts; then give up all that is in hand."""
        problem: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._loop)
            tasks.start_soon(self._watch_clock)
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Not through the task group, which would wrap it into a group.
                problem = error
            finally:
                self._close()
                tasks.cancel_scope.cancel()
        if problem is not None:
            raise problem

    def _close(self) -> None:
        self._closing = True
        for waiter in self.queue:
            waiter.refuse(BrokerClosed("the pool is closing"))
        for member in self.members:
            member.leave("the pool is closing")

    # ---- for users of the pool ------------------------------------------------------------

    def check(self, waiter: Waiter) -> None:
        """Refuse whom the pool has no room for, or could never serve.

        Raises:
            PoolFull, BrokerClosed, InvalidValue: it is so.
        """
        if self._closing:
            raise BrokerClosed("the pool is closed")
        if waiter.asks.needs > self.terms.rules.working_life:
            raise InvalidValue("timeout", waiter.asks.needs, "is more than a machine may work")
        free = sum(
            self.terms.rules.jobs_per_machine - member.uses
            for member in self.members
            if member.view(self.terms.rules).works(self.now())
            and member.standing is not Standing.BOOTING
        )
        if len(self.queue) - free >= self.terms.queue:
            raise PoolFull(f"{len(self.queue)} wait for a machine of pool {self.terms.share.name}")

    def give_back(self, member: Member, *, worked: bool) -> None:
        """Somebody needs a machine no more. Does not await.

        Args:
            worked: a job has run on it meanwhile.
        """
        member.uses -= 1
        member.useful, self._useless = True, 0
        if not member.uses and member.standing is Standing.BUSY:
            jobs = self.terms.activity == "jobs" and worked
            member.ready(member.last_job if jobs else self.now())
        self.look()

    async def status(self) -> PoolStatus:
        """How the pool is now."""
        return await self._idling.status(self.members, len(self.queue))

    # ---- the loop -------------------------------------------------------------------------

    async def _loop(self) -> None:
        while not self._closing:
            self._changed = anyio.Event()
            self._begun += 1
            try:
                look_at = await self._step()
                self._blind_since = None
            except Exception as error:  # noqa: BLE001 - its machines cost money: it goes on
                problem = f"{type(error).__name__}: {error}"
                self._tell(EventKind.ALARM, f"pool {self.terms.share.name}: {problem}")
                look_at = self.now() + (POLL if self.queue else LOOK)
                self._end_idle()
            self._ended = self._begun
            after, self._after = self._after, anyio.Event()
            after.set()
            with anyio.move_on_after(max(0.02, look_at - self.now())):
                await self._changed.wait()

    def _end_idle(self) -> None:
        """Nothing can be decided: give up what is past its idle limit, and what cannot get one."""
        now = self.now()
        since = self._blind_since = self._blind_since or now
        for member in self.members:
            seen = member.view(self.terms.rules)
            if seen.idle and now >= max(seen.idle_until or seen.since, since + _BLIND):
                member.leave(f"idle for {now - seen.since:.0f} s, and nothing can be decided")

    async def _watch_clock(self) -> None:
        """When the clock has jumped, time is bought before its deadlines are seen to."""
        while True:
            await self._supervisor.jumped.wait()
            self.look()

    async def _step(self) -> float:
        """Look, decide, carry out; returns when to look again."""
        name, mine, now = self.terms.share.name, self._parts.identity, self.now()
        rows, others = await self._parts.ledger(
            lambda ledger: (ledger.pool(name), ledger.pool_waits(name, mine.id, mine.host, now))
        )
        self._notice_losses({row.id: row for row in rows})
        await self._buy_time()
        await self._idling.look(self.members)
        cold_start = await self._idling.cold_start(self.members)
        # From here to the first step nothing is awaited: what is decided on is still there then.
        theirs = self._shared.views(rows, {member.id for member in self.members})
        self._others = any(machine.reachable and machine.works(now) for machine in theirs)
        view = PoolView(
            machines=[*(member.view(self.terms.rules) for member in self.members), *theirs],
            waiting=[waiter.asks for waiter in self.queue],
            others=others,
            cold_start=cold_start,
            rent_after=self._rent_after,
            warm_after=self._warm_after,
        )
        steps = decide(view, self.terms.rules, self.now())
        await self._carry_out(steps, rows)
        if self.queue and theirs:
            await self._tell_others()
        return steps.look_at

    async def _carry_out(self, steps: PoolSteps, rows: Sequence[LeaseRow]) -> None:
        members = {member.id: member for member in self.members}
        waiters = {id(waiter.asks): waiter for waiter in self.queue}
        for lease, reason in steps.release:
            members[lease].leave(reason)
        for asks, lease in steps.give:
            await self._give(waiters[id(asks)], members[lease])
        for row in rows:
            if row.id in steps.take:
                self._add(Member(row.id, taken=True), row)
        for _ in range(steps.rent):
            self._add(Member(self._parts.new_id("machine")), None)
        for lease in steps.park:
            if members[lease].standing is Standing.FREE:
                await self._park(members[lease])
        for lease in steps.keep:
            if members[lease].standing is Standing.PARKED:
                await self._park(members[lease], self.now() + KEPT)

    async def _tell_others(self) -> None:
        """Say on record since when somebody waits here: others leave idle machines to them."""
        name, mine, until = (
            self.terms.share.name,
            self._parts.identity.id,
            self.now() + _WAIT_COUNTS,
        )
        since = min(waiter.asks.since for waiter in self.queue)
        await self._supervisor.beat()
        await self._parts.ledger(lambda ledger: ledger.wait_in_pool(name, mine, since, until))

    def _notice_losses(self, rows: dict[str, LeaseRow]) -> None:
        """Let go of machines that others have taken, or asked to be given up."""
        for member in self.members:
            row, hold = rows.get(member.id), member.hold
            if hold is None or member.standing is Standing.LEAVING:
                continue
            # What was read may be older than what is in hand, which was taken meanwhile.
            if hold.left or (row is not None and row.epoch > hold.row.epoch):
                self._lose(member)
            elif hold.release_reason is not None:
                member.leave(hold.release_reason)
            elif row is not None and row.release_requested_at is not None:
                member.leave(row.release_reason)
            elif row is not None and row.drain_reason:
                member.wrong = member.wrong or row.drain_reason

    def _lose(self, member: Member) -> None:
        assert member.hold is not None
        if member.uses:
            # Somebody took us for dead, and ends it: whoever uses it here hears of a loss.
            member.hold.lost = True
            member.leave("another process has taken it over")
            return
        self._supervisor.let_go(member.hold)
        member.standing = Standing.LEAVING
        member.over.set()

    async def _buy_time(self) -> None:
        """Reserve more for machines whose reservation comes to its end."""
        for hold in tuple(self._supervisor.holds.values()):
            ends = hold.row.deadline - self.now()
            ours = hold.row.pool == self.terms.share.name and hold.release_reason is None
            if not ours or ends > RENEW or hold.row.deadline >= hold.life_ends:
                continue
            try:
                await self._shared.extend(hold, self.now() + HORIZON)
            except OverLimit as over:
                if not hold.drain_reason:
                    hold.drain_reason = str(over)
                    self._tell(EventKind.NOTE, f"{hold.row.id} gets no more time: {over}")
            except StaleOwner:
                continue  # taken over: the next look shows it

    async def _give(self, waiter: Waiter, member: Member) -> None:
        """Give somebody a machine, if it can be had still; else it is decided anew."""
        hold = member.hold
        assert hold is not None
        if member.standing is Standing.LEAVING:
            self.look()
            return
        try:
            if member.standing is Standing.PARKED:
                await self._take_back(member)
            if waiter.asks.needs:
                await self._shared.extend(hold, self.now() + waiter.asks.needs)
        except OverLimit as over:
            assert member.lease is not None
            if waiter in self.queue:
                self.queue.remove(waiter)
                waiter.refuse(BudgetExceeded(str(over), member.lease.record))
            self.look()
            return
        except StaleOwner:
            self._lose(member)
            self.look()
            return
        if waiter in self.queue:
            self.queue.remove(waiter)
            waiter.serve(member)

    async def _take_back(self, member: Member) -> None:
        """Have a parked machine in hand alone."""
        hold, now, mine = member.hold, self.now(), self._parts.identity.id
        assert hold is not None
        row = hold.row
        hold.update(await self._parts.ledger(lambda ledger: ledger.take(row, mine, now)))
        member.standing = Standing.FREE

    async def _park(self, member: Member, least: float = 0.0) -> None:
        try:
            await self._idling.park(member, least)
        except StaleOwner:
            self._lose(member)

    # ---- machines that come and go --------------------------------------------------------

    def _add(self, member: Member, row: LeaseRow | None) -> None:
        self.members.append(member)
        self._tasks.start_soon(self._keep, member, row)

    async def _keep(self, member: Member, row: LeaseRow | None) -> None:
        """Have a machine from its beginning to its end, whatever comes."""
        bring = self._keeper.rented if row is None else partial(self._keeper.taken, row)
        try:
            await self._keeper.keep(member, bring)
        except LetGo:
            pass  # another process has it
        except Exception as error:  # noqa: BLE001 - one machine's fault must not end the others
            self._failed(member, error, taken=row is not None)
        finally:
            self.members.remove(member)
            if member.wrong and not member.useful:
                self._useless += 1
                pause = delay(self._useless, self._parts.source, first=60.0, cap=1800.0)
                self._warm_after = self.now() + pause
            self.look()

    def _works(self) -> None:
        """A machine has come up: nothing speaks against renting."""
        self._failures, self._rent_after = 0, float("-inf")
        self.look()

    def _failed(self, member: Member, error: Exception, *, taken: bool) -> None:
        """There is no machine. Who waits hears of it, unless there is another one to wait for."""
        if member.came_up or (taken and not isinstance(error, LedgerError)):
            self._tell(EventKind.FAILED, f"{member.id}: {error}")
            return
        if taken:
            return  # somebody else was quicker
        if isinstance(error.__cause__, NoPlace):
            self._rent_after = self.now() + POLL
            return
        self._failures += 1
        self._rent_after = self.now() + delay(self._failures, self._parts.source)
        self._tell(EventKind.FAILED, f"no machine for pool {self.terms.share.name}: {error}")
        if isinstance(error, (LeaseReleased, StaleOwner)):
            return  # it was somebody's wish that it went: nothing speaks against another one
        if len(self.members) == 1 and not self._others:
            for waiter in self.queue:
                waiter.refuse(error)
            self.queue.clear()

    def _tell(self, kind: EventKind, text: str) -> None:
        self._parts.emit(kind, text)
