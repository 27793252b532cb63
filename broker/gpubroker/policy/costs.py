"""What leases have cost, added up by day, provider, tag or job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpubroker.model.costs import CostLine, CostsBy
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.pricing import cost_so_far
from gpubroker.policy.windows import date_of


@dataclass(frozen=True, slots=True)
class JobCost:
    """A job of a lease, and what the lease cost from the end of the job before it to its end, USD.

    The first job bears boot and set-up. One that still runs has cost nothing yet.
    """

    id: str
    title: str
    cost: Money


def held(lease: LeaseRow, now: float) -> Money:
    """USD that is reserved for a lease beyond what it has cost so far."""
    committed = lease.reserved + lease.spent
    return max(ZERO, committed - cost_so_far(lease, now), key=lambda money: money.amount)


def shares(lease: LeaseRow, jobs: Sequence[JobCost], now: float) -> list[tuple[JobCost, Money]]:
    """What each job of a lease has cost, so that they add up to what the lease has.

    The last one bears the rest: the time until the machine was given up, and what the vendor
    billed differently from what was counted.

    Args:
        jobs: in the order in which they ran.
    """
    if not jobs:
        return []
    *others, last = jobs
    rest = cost_so_far(lease, now) - sum((job.cost for job in others), ZERO)
    return [*((job, job.cost) for job in others), (last, rest)]


@dataclass(slots=True)
class _Sum:
    title: str = ""
    spent: Money = ZERO
    reserved: Money = ZERO
    leases: set[str] = field(default_factory=set[str])
    open: set[str] = field(default_factory=set[str])

    def add(self, lease: LeaseRow, spent: Money, reserved: Money) -> None:
        self.spent += spent
        self.reserved += reserved
        self.leases.add(lease.id)
        if lease.state.open:
            self.open.add(lease.id)


def cost_lines(
    by: CostsBy,
    leases: Iterable[LeaseRow],
    jobs: Mapping[str, Sequence[JobCost]],
    now: float,
    timezone: str,
) -> list[CostLine]:
    """The lines: days in their order, anything else by what it cost, the most first.

    Args:
        jobs: by the id of their lease, in the order in which they ran.
        timezone: decides which day it was.
    """
    sums: dict[str, _Sum] = {}
    for lease in leases:
        spent, reserved = cost_so_far(lease, now), held(lease, now)
        of_jobs = shares(lease, jobs.get(lease.id, ()), now) if by == "job" else []
        for number, (job, share) in enumerate(of_jobs, 1):
            line = sums.setdefault(job.id, _Sum(job.title))
            line.add(lease, share, reserved if number == len(of_jobs) else ZERO)
        if not of_jobs:
            for name in _names(by, lease, timezone):
                sums.setdefault(name, _Sum()).add(lease, spent, reserved)
    lines = [
        CostLine(
            name=name,
            title=line.title,
            spent=line.spent,
            reserved=line.reserved,
            leases=len(line.leases),
            open=len(line.open),
        )
        for name, line in sorted(sums.items())
    ]
    if by != "day":
        lines.sort(key=lambda line: line.spent.amount, reverse=True)
    return lines


def _names(by: CostsBy, lease: LeaseRow, timezone: str) -> Sequence[str]:
    match by:
        case "day":
            return [date_of(lease.created_at, timezone).isoformat()]
        case "provider":
            return [lease.provider]
        case "tag":
            return tuple(dict.fromkeys(lease.tags)) or [""]
        case "job":
            return [""]
