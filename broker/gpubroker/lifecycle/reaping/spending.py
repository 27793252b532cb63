"""Watch what is really spent: tell of thresholds, and act when a limit has been spent."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final

import anyio

from gpubroker.errors import LedgerError
from gpubroker.lifecycle.owner import HEARTBEAT
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.events import BudgetAlert, EventKind
from gpubroker.model.leases import LeaseRow
from gpubroker.policy.budget import (
    Claim,
    Ending,
    Limit,
    Usage,
    alert_name,
    endings,
    limits,
    reached,
    standing_limits,
)

#: Seconds without a look after which one is due: a little more than half of what lies between two
#: sweeps, so that of two looks at the same moment the sweep's is the only one.
_LOOK_EVERY: Final = HEARTBEAT + 1.0


class Spending:
    """Keeps an eye on the limits of one open broker."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._told: set[str] = set()
        self._looked = -math.inf

    async def loop(self) -> None:
        """Look whenever no sweep has for a while, as long as leases are held."""
        while True:
            await self._supervisor.occupied()
            await anyio.sleep(HEARTBEAT)
            while self._supervisor.holds:
                pause = self._looked + _LOOK_EVERY - anyio.current_time()
                await (anyio.sleep(pause) if pause > 0 else self.look())

    async def look(self) -> None:
        """Compare what has been spent with the limits, once, and do what follows."""
        self._looked = anyio.current_time()
        try:
            await self._look()
        except LedgerError as error:
            self._parts.emit(EventKind.ALARM, f"what is spent could not be read: {error}")

    async def _look(self) -> None:
        parts, now = self._parts, self._parts.now()
        usages, running = await parts.ledger(
            lambda ledger: ledger.usages(lambda running: self._limits(running, now), now)
        )
        for usage in usages:
            await self._tell(usage)
        for ending in endings(usages, running, parts.budget.at_limit):
            await self._end(ending)

    def _limits(self, running: list[LeaseRow], now: float) -> list[Limit]:
        """Those that hold now, and those that open leases count to, from an earlier window too."""
        budget, holds = self._parts.budget, self._supervisor.holds
        found = standing_limits(budget, now, budget.provider, budget.tag)
        for lease in running:
            hold = holds.get(lease.id)
            allowance = None if hold is None else hold.allowance
            found += limits(budget, Claim.of(lease, allowance))
        return list(dict.fromkeys(found))

    async def _tell(self, usage: Usage) -> None:
        """Tell of the highest fraction that was reached, unless somebody has."""
        limit, fractions = usage.limit, reached(usage, self._parts.budget.alert_at)
        names = [alert_name(limit, fraction) for fraction in fractions]
        if not names or names[-1] in self._told:
            return
        now = self._parts.now()
        new = await self._parts.ledger(lambda ledger: ledger.claim_alerts(names, now))
        self._told.update(names)
        if names[-1] not in new:
            return
        alert = BudgetAlert(
            limit=limit.name,
            fraction=fractions[-1],
            amount=limit.amount,
            spent=usage.spent,
            committed=usage.committed,
            since=limit.since,
            until=limit.until,
        )
        self._parts.emit(
            EventKind.BUDGET,
            str(alert),
            provider=limit.provider,
            lease_id=limit.lease_id,
            alert=alert,
        )

    async def _end(self, ending: Ending) -> None:
        """End a lease of ours; of another's, ask its owner to, who hears of it by its heartbeat."""
        parts, lease, reason = self._parts, ending.lease, ending.reason
        hold = self._supervisor.holds.get(lease.id)
        if hold is not None and ending.at_once:
            self._supervisor.request_release(hold, reason)
        elif hold is not None:
            await self._supervisor.drain(hold, reason)
        else:
            now = parts.now()
            with suppress(LedgerError):  # it changed hands just now: the next look sees to it
                await parts.ledger(
                    lambda ledger: (
                        ledger.request_release(lease, now, reason)
                        if ending.at_once
                        else ledger.request_drain(lease, now, reason)
                    )
                )
            text = f"{lease.id} is to be given up: {reason}"
            parts.emit(EventKind.FOUND, text, provider=lease.provider, lease_id=lease.id)
