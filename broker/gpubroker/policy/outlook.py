"""What each way to keep machines would cost for some traffic, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Price
from gpubroker.policy.keep_warm import break_even, fixed, learnt
from gpubroker.policy.replay import Arrival, Ground, Strategy, clairvoyant, replay
from gpubroker.policy.schedule import Schedule

_DAY: Final = 86_400.0
#: Days in a month, on average.
MONTH: Final = 30.4375


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What one strategy would cost, and how long people would wait.

    Attributes:
        strategy: its name.
        built: whether pools can do it; what they cannot is there for comparison.
        day: USD a day. month: USD a month of 30.4 days. image: USD for each request.
        wait_p50: seconds until a request had its machine, for half of them at most.
        wait_p95: the same for 95 of 100. latency_p50, latency_p95: until its result was there.
        cold: requests that had a machine started for them, as a part of all.
        hours: machine-hours a day.
        overhead: seconds of booting and idling over the least possible; ``None`` if that is none.
    """

    strategy: str
    built: bool
    day: Money
    month: Money
    image: Money
    wait_p50: float
    wait_p95: float
    latency_p50: float
    latency_p95: float
    cold: float
    hours: float
    overhead: float | None


def strategies(idle: float, schedule: Schedule | None) -> Iterator[Strategy]:
    """Every way there is; the scheduled one where a schedule is given."""
    yield Strategy(name="always on", keep=fixed(0), warm=1)
    yield Strategy(name="on demand", keep=fixed(0))
    yield Strategy(name=f"idle stop {idle:g} s", keep=fixed(idle))
    yield Strategy(name="break-even", keep=break_even())
    yield Strategy(name="learnt", keep=learnt())
    if schedule is not None:
        yield Strategy(name="scheduled", keep=learnt(), warm=1, schedule=schedule)
    yield Strategy(name="stop, keep disk", keep=break_even(), stops=True)


def outlook(
    arrivals: Sequence[Arrival],
    strategy: Strategy,
    ground: Ground,
    price: Price,
    quantum: float = 1.0,
) -> Outlook:
    """What a strategy would cost for these arrivals.

    Args:
        price: of a machine and its disk.
        quantum: machines are billed in multiples of so many seconds.

    Raises:
        InvalidValue: there are no arrivals.
    """
    if not arrivals:
        raise InvalidValue("usage", "", "there are no requests")
    found = replay(arrivals, strategy, ground)
    disks = Price(machine=ZERO, disk=price.disk).for_seconds(found.stopped)
    cost = sum((price.for_seconds(held, quantum=quantum) for held in found.held), disks)
    days = (ground.until - ground.since) / _DAY
    least = clairvoyant(arrivals, ground.cold_start)
    return Outlook(
        strategy=strategy.name,
        built=not strategy.stops,
        day=_whole(cost / days),
        month=_whole(cost / days * MONTH),
        image=_whole(cost / len(arrivals)),
        wait_p50=_percentile(found.waits, 50),
        wait_p95=_percentile(found.waits, 95),
        latency_p50=_percentile(found.latencies, 50),
        latency_p95=_percentile(found.latencies, 95),
        cold=found.cold / len(arrivals),
        hours=math.fsum(found.held) / 3600 / days,
        overhead=found.overhead / least if least else None,
    )


def _whole(money: Money) -> Money:
    return Money.from_micros(money.micros)


def _percentile(values: Sequence[float], part: int) -> float:
    """The least of the values that so many of 100 do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * part / 100) - 1)]


def recommended(outlooks: Sequence[Outlook], longest_wait: float | None = None) -> Outlook | None:
    """The cheapest that pools can do, whose wait is no longer for 95 of 100 requests; if any is.

    Of several that cost the same, the one with the shorter wait.
    """
    fit = [
        each
        for each in outlooks
        if each.built and (longest_wait is None or each.wait_p95 <= longest_wait)
    ]
    return min(fit, key=lambda each: (each.month.amount, each.wait_p95), default=None)
