"""How long idle machines are kept, and what a pool has seen of its own traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpubroker.errors import StaleOwner
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.pooling.member import Member
from gpubroker.lifecycle.pooling.terms import PoolTerms
from gpubroker.model.events import EventKind
from gpubroker.model.money import Money
from gpubroker.model.pools import PoolStatus
from gpubroker.policy.budget import Limit
from gpubroker.policy.experience import PRIOR_BOOT
from gpubroker.policy.pool import Standing, cold_start, gaps
from gpubroker.policy.windows import day_of

#: Jobs that gaps are read from, the newest ones; as many as rules remember.
_USES: Final = 512
#: Cold starts that the next one is expected by.
_COLD_STARTS: Final = 8
#: Seconds that set-up is taken to last where nobody has seen it.
_PRIOR_SETUP: Final = 60.0


class Idling:
    """Parks machines of one pool, each with the moment at which it is given up."""

    def __init__(self, parts: Parts, terms: PoolTerms) -> None:
        self._parts = parts
        self._terms = terms
        self._name = terms.share.name

    async def park(self, member: Member, least: float = 0.0) -> None:
        """Leave a machine in hand for whoever takes it first, until its idle limit.

        Args:
            least: Unix time until which it is kept in any case.

        Raises:
            StaleOwner: another process has taken it over.
        """
        assert member.hold is not None
        now, row = self._parts.now(), member.hold.row
        until = max(member.since + await self._kept_for(member), least)
        member.hold.update(await self._parts.ledger(lambda ledger: ledger.park(row, until, now)))
        if member.standing is Standing.FREE:
            member.standing = Standing.PARKED

    async def _kept_for(self, member: Member) -> float:
        """Seconds for which the rule keeps a machine that is idle."""
        uses = await self._parts.ledger(lambda ledger: ledger.pool_uses(self._name, _USES))
        cold = await self.cold_start([member])
        try:
            return max(0.0, self._terms.keep_warm(gaps(uses), cold))
        except Exception as error:  # noqa: BLE001 - without a rule, it would be kept for ever
            self._tell(member, "its rule for how long to keep it", error)
            return cold

    async def look(self, members: Sequence[Member]) -> None:
        """Where activity is asked for: move the idle limits of machines that were active."""
        activity, now = self._terms.activity, self._parts.now()
        if not callable(activity):
            return
        for member in members:
            over = member.hold is not None and (member.hold.row.idle_until or now + 1) <= now
            if member.standing is not Standing.PARKED or member.lease is None or not over:
                continue
            try:
                active = min(activity(member.lease), now)
            except Exception as error:  # noqa: BLE001 - its idle limit holds all the same
                self._tell(member, "what tells of its activity", error)
                continue
            if active > member.since:
                member.since = active
                try:
                    await self.park(member)
                except StaleOwner:
                    continue  # taken meanwhile: the next look shows it

    def _tell(self, member: Member, what: str, error: Exception) -> None:
        text = f"{what} failed: {type(error).__name__}: {error}"
        self._parts.emit(EventKind.ALARM, text, lease_id=member.id)

    async def cold_start(self, members: Sequence[Member]) -> float:
        """Seconds that the next cold start is expected to take."""
        seen = await self._parts.ledger(lambda ledger: ledger.cold_starts(self._name, _COLD_STARTS))
        if seen:
            return cold_start(seen, 0.0)
        setup = any(wanted.setup is not None for wanted in self._terms.wish.wanted)
        expected = PRIOR_BOOT + (_PRIOR_SETUP if setup else 0.0)
        memory = self._parts.recall.memory(self._parts.now())
        for hold in [member.hold for member in members if member.hold is not None]:
            place = (hold.offer.provider, hold.offer.host, hold.image)
            boot = memory.boot(*place, PRIOR_BOOT if hold.provider.facts.paid else 0.0)
            expected = boot + (memory.setup(*place, _PRIOR_SETUP) if setup else 0.0)
        return expected

    async def status(self, members: Sequence[Member], queued: int) -> PoolStatus:
        """How the pool is now."""
        name, now = self._name, self._parts.now()
        since, until = day_of(now, self._parts.budget.timezone)
        today = Limit("today", Money(0), since=since, until=until, tag=f"pool:{name}")
        rows, (usages, _) = await self._parts.ledger(
            lambda ledger: (ledger.pool(name), ledger.usages(lambda _: [today], now))
        )
        held = {member.id for member in members}
        count = dict.fromkeys(Standing, 0)
        for member in members:
            count[member.standing] += 1
        mine = self._parts.identity.id
        return PoolStatus(
            name=name,
            warm=count[Standing.FREE] + count[Standing.PARKED],
            busy=count[Standing.BUSY],
            booting=count[Standing.BOOTING],
            leaving=count[Standing.LEAVING],
            others=sum(row.id not in held and row.owner != mine for row in rows),
            queued=queued,
            idle_until={
                member.id: member.hold.row.idle_until
                for member in members
                if member.standing is Standing.PARKED
                and member.hold is not None
                and member.hold.row.idle_until is not None
            },
            cost_today=usages[0].spent,
        )
