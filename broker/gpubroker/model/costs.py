"""What was spent, and on what; and how full the limits are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpubroker.model.money import Money

CostsBy = Literal["day", "provider", "tag", "job"]
"""What costs are added up by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """What one day, provider, tag or job has cost.

    Attributes:
        name: the date, the provider, the tag or the job's id; empty for leases without any.
        title: what a job did; empty for anything else.
        spent: USD settled, and counted so far of leases that are open.
        reserved: USD held besides that for leases that are open.
        leases: how many leases that is. open: how many of them are open.
    """

    name: str
    title: str = ""
    spent: Money
    reserved: Money
    leases: int
    open: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitLine:
    """How full one limit on money is.

    Attributes:
        amount: USD that the limit allows.
        spent: USD settled, and counted so far. reserved: USD held besides that.
    """

    name: str
    amount: Money
    spent: Money
    reserved: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinesLine:
    """How many machines are held of those that one limit allows."""

    name: str
    machines: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the leases asked for within an interval have cost, all of it, however long they ran.

    Attributes:
        by: what `lines` are about. A lease with several tags is part of several lines, so that
            those of tags may add up to more than the whole.
        at: Unix seconds at which that was so.
        since, until: the half-open interval, in Unix seconds; ``None`` is without end.
        spent: USD settled, and counted so far of leases that are open: the whole.
        reserved: USD held besides that for leases that are open: the whole.
        limits: how full the limits are that hold now, whatever the interval.
        machines: how many machines are held, where that is limited.
    """

    by: CostsBy
    at: float
    since: float | None
    until: float | None
    lines: tuple[CostLine, ...]
    spent: Money
    reserved: Money
    limits: tuple[LimitLine, ...] = ()
    machines: tuple[MachinesLine, ...] = ()
