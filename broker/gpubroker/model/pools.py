"""Machines that are kept warm: what they share, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass

from gpubroker.model.money import Money


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShare:
    """What makes a lease part of a pool.

    Attributes:
        name: the pool's.
        machines: how many there may be in it at a time.
        lifetime: seconds that its machine may live, however often its deadline is moved.
        wanted: names what the pool's machines must be.
    """

    name: str
    machines: int
    lifetime: float
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """How a pool is, as one of its processes sees it.

    Attributes:
        warm: machines with nothing to do. busy: those in use. booting: those on their way.
        leaving: those being given up. All of these are this process's own.
        others: machines of other processes.
        queued: who waits for a machine here.
        idle_until: Unix times at which idle machines are given up, by the lease's id.
        cost_today: USD that leases asked for today, by the budget's time zone, have cost so far.
    """

    name: str
    warm: int
    busy: int
    booting: int
    leaving: int
    others: int
    queued: int
    idle_until: dict[str, float]
    cost_today: Money
