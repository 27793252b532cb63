"""Put what a vendor really billed on record, once that is final."""

from __future__ import annotations

from collections.abc import Sequence

from gpubroker.errors import ProviderError
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import Money
from gpubroker.policy.pricing import DRIFT_OVER, drifts, is_surprising
from gpubroker.policy.windows import day_of

#: Seconds after which a bill that never came is waited for no more.
_LONGEST = 7 * 86_400.0

#: Least seconds between two looks for a bill that did not show what it should.
_AGAIN = 600.0


class Settling:
    """Settles the released leases of one broker's ledger."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._asked: dict[str, float] = {}
        #: By provider: the Unix time before which nothing can become due.
        self._next: dict[str, float] = {}

    async def settle_all(self) -> bool:
        """Ask each provider that can tell for what is due; returns whether anything was booked."""
        names = [n for n, provider in self._parts.providers.items() if "charges" in provider.hooks]
        return any([await self._settle(name) for name in names])

    async def _settle(self, name: str) -> bool:
        parts, now = self._parts, self._parts.now()
        provider, since = parts.providers[name], now - _LONGEST
        later = provider.facts.charges_after
        # A clock that was set back must not make this wait for it to catch up.
        if now < self._next.get(name, now) <= now + max(later, _AGAIN):
            return False
        rows = await parts.ledger.insist(
            lambda ledger: ledger.unsettled(name, since=since, until=now)
        )
        due = [row for row in rows if self._due_at(row, later) <= now]
        booked = bool(due) and await self._settle_due(name, due)
        coming = [at for row in rows if (at := self._due_at(row, later)) > now]
        # What has not ended yet becomes due later than that.
        self._next[name] = now if booked is None else min([now + later, *coming])
        return bool(booked)

    async def _settle_due(self, name: str, due: Sequence[LeaseRow]) -> bool | None:
        """Ask for bills; returns whether any was booked, or ``None`` if it could not be asked."""
        provider, now = self._parts.providers[name], self._parts.now()
        try:
            charges = await provider.charges(min(row.created_at for row in due), now)
        except ProviderError:
            return None  # asked again with the next sweep
        billed = {charge.machine_id: charge.amount for charge in charges}
        booked: list[bool] = []
        for row in due:
            amount = billed.get(row.machine_id or "")
            if amount is None or amount < Money(0):
                self._asked[row.id] = now
            else:
                booked.append(await self._book(row, amount))
        if booked and not any(booked):
            await self._compare(name)
        return bool(booked)

    def _due_at(self, row: LeaseRow, later: float) -> float:
        """Unix time at which to ask for a released lease's bill."""
        ended_at = row.ended_at or row.created_at
        asked = self._asked.get(row.id)
        return ended_at + later if asked is None else max(ended_at + later, asked + _AGAIN)

    async def _book(self, row: LeaseRow, amount: Money) -> bool:
        """Settle one lease; returns whether that was worth an alarm."""
        parts, now = self._parts, self._parts.now()
        settled = await parts.ledger.insist(lambda ledger: ledger.settle(row, amount, now))
        text = f"{row.machine_id} was billed at {amount}; {row.spent} had been counted"
        surprising = settled.settled_at == now and is_surprising(row.spent, amount)
        kind = EventKind.ALARM if surprising else EventKind.SETTLED
        parts.emit(kind, text, provider=row.provider, lease_id=row.id)
        return surprising

    async def _compare(self, name: str) -> None:
        """Raise an alarm, once a day, where bills and counts of a provider drift apart."""
        parts, now = self._parts, self._parts.now()
        since, until = now - DRIFT_OVER, now
        counted, billed = await parts.ledger.insist(lambda ledger: ledger.billed(name, since=since))
        if not drifts(counted, billed):
            return
        day, _ = day_of(until, parts.budget.timezone)
        mark = f"drift of {name}/{day:.0f}"
        if await parts.ledger.insist(lambda ledger: ledger.claim_alerts([mark], until)):
            text = f"{name} billed {billed} in 30 days, and {counted} had been counted"
            parts.emit(EventKind.ALARM, text, provider=name)
