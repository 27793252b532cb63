"""What a lease may cost at the worst, and what it did cost."""

from __future__ import annotations

import math

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.offers import SAME_MOMENT, Price

DEFAULT_LIFETIME = 3600.0
"""Seconds that a machine may live where nothing else is said."""

BOOT_ALLOWANCE = 900.0
"""Seconds of a default lifetime that a job's own time is not counted against."""

SHORTEST_LIFETIME = 60.0
"""Seconds below which a machine is not worth renting."""


def worst_case(price: Price, lifetime: float, facts: ProviderFacts) -> Money:
    """USD that a machine can cost at the most: its whole lifetime and the time it takes to go.

    Where traffic is billed, an allowance for it is part of that.

    Whole micro-dollars, as the ledger reserves it; the rate too is rounded up to them, as the
    ledger keeps it, so that no lease can cost more than was reserved for it.
    """
    rate = Price(machine=Money.from_micros(price.hourly.micros_up))
    seconds = lifetime + facts.release_margin + float(SAME_MOMENT)
    held = rate.for_seconds(seconds, quantum=facts.billing_quantum)
    return Money.from_micros((held + price.traffic).micros_up)


def more_for(lease: LeaseRow, until: float, margin: float) -> Money:
    """USD to reserve besides what is, where a lease's deadline moves to Unix time `until`.

    Args:
        margin: seconds that its machine may bill after any deadline.
    """
    start = _billed_from(lease) - margin - float(SAME_MOMENT)
    before, after = _held(lease, lease.deadline - start), _held(lease, until - start)
    return Money.from_micros(max(0, after.micros_up - before.micros))


def lifetime_within(
    price: Price, facts: ProviderFacts, *, wanted: float | None, needed: float, left: Money | None
) -> float | None:
    """How long, in seconds, a machine may live so that its worst case fits what is left.

    Args:
        wanted: the lifetime that the caller set; it is never shortened.
        needed: seconds that the job needs at the least.
        left: USD that may still be spent; ``None`` is no limit.

    Returns:
        The lifetime, or ``None`` when `left` does not pay for it.
    """
    lifetime = max(DEFAULT_LIFETIME, needed + BOOT_ALLOWANCE) if wanted is None else wanted
    if left is None or worst_case(price, lifetime, facts) <= left:
        return lifetime
    shortest = max(SHORTEST_LIFETIME, needed)
    if wanted is not None or worst_case(price, shortest, facts) > left:
        return None
    if not price.hourly.amount:
        return None  # its traffic alone is too much
    for_time = (left - price.traffic).amount
    affordable = float(for_time / price.hourly.amount * 3600) - facts.release_margin
    quanta = math.floor(max(affordable, 0.0) / facts.billing_quantum)
    lifetime = max(shortest, quanta * facts.billing_quantum - facts.billing_quantum)
    return lifetime if worst_case(price, lifetime, facts) <= left else shortest


CREATE_DEADLINE = 300.0
"""Seconds within which a create is answered or given up."""


def spent(lease: LeaseRow, until: float) -> Money:
    """USD that a lease has cost by Unix time `until`.

    It costs from the moment the create was sent to the moment the destroy was acknowledged. Only
    a create that took effect long after it was given up costs from then.
    """
    end = until if lease.acknowledged_at is None else min(until, lease.acknowledged_at)
    return _held(lease, end - _billed_from(lease))


def cost_so_far(lease: LeaseRow, now: float) -> Money:
    """USD that a lease has cost, in whole micro-dollars: settled, or counted until Unix time `now`.

    Of one that is only watched for nothing was ever seen, so it has cost nothing.
    """
    if not lease.state.open or lease.state is LeaseState.LATE_WATCH:
        return lease.spent
    counted = Money.from_micros(spent(lease, now).micros_up)
    return max(lease.spent, counted, key=lambda money: money.amount)


def _billed_from(lease: LeaseRow) -> float:
    start = lease.created_at
    late = lease.accepted_at is not None and lease.accepted_at - start > CREATE_DEADLINE
    return lease.accepted_at if late and lease.accepted_at is not None else start


def _held(lease: LeaseRow, seconds: float) -> Money:
    return Price(machine=lease.hourly).for_seconds(max(0.0, seconds), quantum=lease.quantum)


def still_held(lease: LeaseRow, margin: float, now: float) -> Money:
    """USD to hold for a machine that goes on billing: never less than what it will have cost.

    Args:
        margin: seconds that it is taken to go on for.
    """
    so_far = _held(lease, max(0.0, now - _billed_from(lease)) + margin)
    return max(lease.reserved, so_far, key=lambda money: money.amount)


def held_after_destroy(lease: LeaseRow, margin: float, at: float) -> Money:
    """USD to hold for a machine whose destroy was accepted at Unix time `at`, until it is proven gone.

    It pays for a machine that bills on all the same, for longer than it takes to notice that, and
    for traffic that has not been billed yet.

    Args:
        margin: seconds that a machine is taken to bill after its destroy.
    """
    start = _billed_from(lease)
    for_time = _held(lease, lease.deadline - start + margin)
    traffic = max(Money(0), lease.reserved - for_time, key=lambda money: money.amount)
    held = _held(lease, max(0.0, at - start) + 2 * margin) + traffic
    return min(lease.reserved, Money.from_micros(held.micros_up), key=lambda money: money.amount)


def held_unseen(lease: LeaseRow, facts: ProviderFacts) -> Money:
    """USD to hold for a create that may still take effect, though nothing was ever seen of it.

    It pays for a machine from its late beginning, which may be taken for that of the create, until
    a sweep has found it and it is gone.
    """
    found = max(CREATE_DEADLINE, facts.visibility_horizon) + facts.release_margin
    held = _held(lease, found + facts.release_margin)
    return min(held, lease.reserved, key=lambda money: money.amount)


_CENT = Money("0.01")


def is_surprising(counted: Money, billed: Money) -> bool:
    """Whether a bill is so far above what was counted that a person should know.

    Traffic is billed, but not counted here, and a vendor's clock is not ours: a third more, or a
    cent, is no surprise.
    """
    return billed > counted * 1.33 + _CENT


DRIFT_OVER = 30 * 86_400.0
"""Seconds over which bills are compared with what was counted."""

_DRIFT = Money("0.50")


def drifts(counted: Money, billed: Money) -> bool:
    """Whether many bills together are so far from what was counted that a person should know.

    That is by more than a hundredth, or by more than 50 cents; a cent is nothing.
    """
    apart = max(counted - billed, billed - counted, key=lambda money: money.amount)
    return apart > _DRIFT or (apart > _CENT and apart > counted * 0.01)
