"""A pool's machines as the ledger has them: others' idle ones are taken, and time is bought."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import anyio

from gpubroker.errors import LedgerError
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.leasing.restoring import restored
from gpubroker.lifecycle.link import Link
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.pools import PoolShare
from gpubroker.model.requirements import Requirements
from gpubroker.policy.budget import Claim, limits
from gpubroker.policy.pool import MachineView, PoolRules, Standing
from gpubroker.policy.pricing import more_for


def fingerprint(wanted: Sequence[Requirements], more: object) -> str:
    """Names what a pool's machines must be: those of another name are not taken.

    Args:
        more: what else they are prepared with.
    """
    return hashlib.sha256(repr((tuple(wanted), more)).encode()).hexdigest()[:16]


class Shared:
    """The ledger's side of one pool.

    Args:
        share: what makes a lease part of it.
        follows: a server runs on each machine, which whoever takes the machine must go on with.
    """

    def __init__(
        self,
        parts: Parts,
        supervisor: Supervisor,
        share: PoolShare,
        rules: PoolRules,
        *,
        follows: bool,
    ) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._share = share
        self._rules = rules
        self._follows = follows

    def views(self, rows: Sequence[LeaseRow], own: set[str]) -> list[MachineView]:
        """What the ledger has besides this process's own machines in hand.

        Args:
            own: ids of the leases in hand.
        """
        found: list[MachineView] = []
        for row in rows:
            gone = row.acknowledged_at is not None or row.state is LeaseState.LATE_WATCH
            asked = row.release_requested_at is not None
            booting = row.machine_id is None or row.state is LeaseState.PROVISIONING
            # What this process is asking for at the moment is in hand under another name.
            asking = row.owner == self._parts.identity.id and booting and not asked
            if row.id in own or gone or asking:
                continue
            found.append(self._view(row, leaving=asked, booting=booting))
        return found

    def _view(self, row: LeaseRow, *, leaving: bool, booting: bool) -> MachineView:
        standing = Standing.PARKED if row.parked else Standing.BUSY
        if leaving or booting:
            standing = Standing.LEAVING if leaving else Standing.BOOTING
        return MachineView(
            id=row.id,
            standing=standing,
            own=False,
            idle_until=row.idle_until,
            since=row.idle_until or 0.0,
            retires_at=row.created_at + self._rules.working_life,
            ends_at=row.created_at + self._rules.lifetime,
            reachable=not leaving and self._reachable(row),
        )

    def _reachable(self, row: LeaseRow) -> bool:
        """Whether what is needed to take it lies here, and it is what this pool wants."""
        files, provider = self._parts.files, self._parts.providers.get(row.provider)
        if files is None or provider is None:
            return False
        if self._follows and not provider.facts.reattaches:
            return False
        kept = files.lease(row.id)
        return kept is not None and kept.wanted == self._share.wanted

    async def take(self, row: LeaseRow) -> tuple[Hold, Money]:
        """Take a machine that another process has parked; also, what its jobs have cost so far.

        Raises:
            StaleOwner: somebody else was quicker.
            LedgerError: it is to be given up, or what is needed is not here any more.
            BrokerClosed: the broker is closing.
        """
        parts, files = self._parts, self._parts.files
        kept = None if files is None else files.lease(row.id)
        reach = None if files is None else files.reach(row.id)
        if kept is None or reach is None:
            raise LedgerError(f"what is needed for {row.id} is not here any more")
        ssh = parts.providers[row.provider].facts.ssh
        await self._supervisor.beat()
        self._supervisor.check_open()
        link = Link.restore(kept, reach) if ssh else None
        mine, now = parts.identity.id, parts.now()
        # Once it is ours on record, somebody must hold it.
        with anyio.CancelScope(shield=True):
            try:
                taken, charged = await parts.ledger(
                    lambda ledger: (ledger.take(row, mine, now), ledger.jobs_cost(row.id))
                )
            except BaseException:
                if link is not None:
                    link.discard()
                raise
            return restored(parts, self._supervisor, taken, kept, link), charged
        raise AssertionError("a shield lets nothing through")

    async def extend(self, hold: Hold, until: float) -> None:
        """Have the deadline of a lease in hand at Unix time `until`, as far as its life goes.

        Raises:
            OverLimit: a limit on money does not allow it. The deadline is as it was.
            LedgerError: it is not ours any more, or the ledger cannot be written.
        """
        parts, row = self._parts, hold.row
        until = min(until, hold.life_ends)
        if until <= row.deadline:
            return
        bounds = limits(parts.budget, Claim.of(row, hold.allowance))
        more = more_for(row, until, hold.provider.facts.release_margin)
        now = parts.now()

        def extend(ledger: Ledger) -> LeaseRow:
            return ledger.extend(row, until, more, bounds, now)

        hold.extended(await parts.ledger(extend), now)
