"""What a pool does next: whom it serves, what it rents, parks, takes and gives up.

Pure: `gpubroker.lifecycle.pooling` carries the steps out, one by one, and looks again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

from gpubroker.errors import InvalidValue
from gpubroker.model.names import is_a
from gpubroker.policy.keep_warm import Gaps

POLL: Final = 0.5
"""Seconds between two looks for what other processes do, while somebody waits."""

LOOK: Final = 15.0
"""Seconds between two looks where nothing is expected."""

YIELD: Final = 3.0
"""Seconds for which an idle machine is left to another process that has waited for longer."""

KEPT: Final = 60.0
"""Seconds for which others may take a machine, at a time, that is kept beyond its idle limit."""

HORIZON: Final = 1800.0
"""Seconds of a machine's life whose money is reserved ahead of time."""

RENEW: Final = 900.0
"""Seconds before the end of what is reserved at which more is reserved."""

_RETIRING: Final = 900.0


class Hours(Protocol):
    """When machines may be warm; `gpubroker.Schedule` is one."""

    def warm_wanted(self, now: float, cold_start: float) -> bool:
        """Whether machines are to be warm, or on their way, at Unix time `now`."""
        ...

    def next_change(self, now: float) -> float:
        """The next Unix time at which its hours may begin or end; infinite if they never do."""
        ...


_ASKED_OF_HOURS: Final = ("warm_wanted", "next_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """How large a pool may be, and when.

    Attributes:
        min_warm: machines that are kept whatever their idle limit says, within `schedule`.
        max_machines: machines that there may be at a time, of all processes that share the pool.
        jobs_per_machine: jobs that run on one machine at a time.
        schedule: when machines may be warm; ``None`` is always.
        lifetime: seconds that a machine may live; it takes no work for the last of them.

    Raises:
        InvalidValue: one of them makes no sense.
    """

    min_warm: int = 0
    max_machines: int = 1
    jobs_per_machine: int = 1
    schedule: Hours | None = None
    lifetime: float = 12 * 3600.0

    def __post_init__(self) -> None:
        for name, least in (("max_machines", 1), ("jobs_per_machine", 1), ("min_warm", 0)):
            value = getattr(self, name)
            if not is_a(value, int) or value < least:
                raise InvalidValue(name, value, f"must be a whole number, {least} or more")
        hours = self.schedule
        if hours is not None and not all(hasattr(hours, asked) for asked in _ASKED_OF_HOURS):
            raise InvalidValue(
                "schedule", hours, "must be a Schedule, such as Schedule.parse makes"
            )
        if self.min_warm > self.max_machines:
            raise InvalidValue("min_warm", self.min_warm, "is more than max_machines")
        if not is_a(self.lifetime, int, float) or not 60.0 <= self.lifetime < math.inf:
            raise InvalidValue("lifetime", self.lifetime, "must be a number of seconds from 60 on")

    @property
    def working_life(self) -> float:
        """Seconds after its making up to which a machine takes new work."""
        return self.lifetime - min(_RETIRING, self.lifetime / 10)


class Standing(enum.StrEnum):
    """Where a machine of a pool is."""

    BOOTING = "booting"  #: asked for, and not ready for work
    FREE = "free"  #: in this process's hands, with no work
    PARKED = "parked"  #: idle on record, for whichever process takes it first
    BUSY = "busy"  #: somebody uses it
    LEAVING = "leaving"  #: being given up; it counts until its destroy was acknowledged


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineView:
    """One machine of a pool. Times are Unix seconds.

    Attributes:
        own: this process holds it.
        uses: jobs and borrowers that it has at the moment.
        since: when it became idle. idle_until: when it is given up unless it is used before.
        retires_at: when it takes no new work any more. ends_at: when its life ends.
        wrong: why it is to be given up once nobody uses it; empty if nothing is wrong with it.
        reachable: of another's: whether it can be taken from here once it is parked.
        taken: it was another's, and is on its way.
        fresh: it has come up just now: none lives longer.
    """

    id: str
    standing: Standing
    own: bool = True
    uses: int = 0
    since: float = 0.0
    idle_until: float | None = None
    retires_at: float = math.inf
    ends_at: float = math.inf
    wrong: str = ""
    reachable: bool = True
    taken: bool = False
    fresh: bool = False

    def works(self, now: float) -> bool:
        """Whether it may get new work."""
        return not self.wrong and now < self.retires_at and self.standing is not Standing.LEAVING

    @property
    def idle(self) -> bool:
        """Whether it is ready, and nobody uses it."""
        return self.standing in (Standing.FREE, Standing.PARKED) and not self.uses


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody in the queue.

    Attributes:
        since: Unix time.
        needs: seconds for which the machine must live.
        avoid: machines that it is rather not given.
    """

    since: float
    needs: float = 0.0
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool as one of its processes sees it.

    Attributes:
        machines: those of all processes.
        waiting: this process's queue, the first comer first.
        others: since when other processes wait.
        cold_start: seconds that the next cold start is expected to take.
        rent_after: Unix time before which nothing is rented, since that has just failed.
        warm_after: Unix time before which nothing is rented but for those who wait, since what was
            kept warm has gone wrong before it was of any use.
    """

    machines: Sequence[MachineView] = ()
    waiting: Sequence[Waiting] = ()
    others: Sequence[float] = ()
    cold_start: float = 0.0
    rent_after: float = -math.inf
    warm_after: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSteps:
    """What to do now, by machines' ids.

    Attributes:
        give: which of those who wait gets which machine.
        take: machines of other processes to take.
        rent: how many new machines to rent.
        park: those to leave to whoever takes them first. keep: those that are left to them already,
            and for longer, since they are to be warm whatever their idle limit says.
        release: those to give up, and why.
        look_at: Unix time at which to look again, at the latest.
    """

    give: tuple[tuple[Waiting, str], ...] = ()
    take: tuple[str, ...] = ()
    rent: int = 0
    park: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    release: tuple[tuple[str, str], ...] = ()
    look_at: float = math.inf


def decide(view: PoolView, rules: PoolRules, now: float) -> PoolSteps:
    """What a process of the pool does at Unix time `now`."""
    hours = rules.schedule
    warm = hours is None or hours.warm_wanted(now, view.cold_start)
    target = rules.min_warm if warm else 0
    give, unserved, yielded = _give(view, rules, now)
    given = {machine for _, machine in give}
    take, unserved = _take(view, rules, unserved, now)
    full = len(view.machines) >= rules.max_machines and unserved > 0
    release = _release(view, target, warm=warm, full=full, spared=given | yielded, now=now)
    going = {machine for machine, _ in release}
    left = [m for m in view.machines if m.own and m.id not in given | going]
    rent = _rent(view, rules, unserved, target, now)
    looks = [now + (POLL if unserved or yielded else LOOK)]
    looks += [m.idle_until for m in left if m.idle_until is not None and m.idle_until > now]
    looks += [m.retires_at for m in left if m.retires_at > now]
    if hours is not None:
        looks.append(hours.next_change(now))
    return PoolSteps(
        give=give,
        take=take,
        rent=rent,
        park=tuple(m.id for m in left if m.standing is Standing.FREE and not m.uses),
        keep=tuple(m.id for m in left if m.idle and now >= (m.idle_until or math.inf)),
        release=release,
        look_at=min(looks),
    )


def _give(
    view: PoolView, rules: PoolRules, now: float
) -> tuple[tuple[tuple[Waiting, str], ...], int, set[str]]:
    """Serve the queue from machines in hand: who gets what, how many get nothing, what is yielded.

    Machines that are used already are filled up first, so that others can go; then the one that
    has been idle for the shortest time.
    """
    ready = (Standing.FREE, Standing.PARKED, Standing.BUSY)
    usable = [m for m in view.machines if m.own and m.standing in ready and m.works(now)]
    usable.sort(key=lambda m: (-m.uses, -m.since, m.id))
    room = {m.id: max(0, rules.jobs_per_machine - m.uses) for m in usable}
    give: list[tuple[Waiting, str]] = []
    yielded: set[str] = set()
    unserved = 0
    for waiting in view.waiting:
        longer = sum(since < waiting.since for since in view.others)
        fresh = [m.id for m in usable if m.idle and room[m.id] > 0 and now < m.since + YIELD]
        yielded |= set(fresh[: max(0, longer - len(yielded))])
        able = [
            m.id
            for m in usable
            if room[m.id] > 0 and m.id not in yielded
            if m.fresh or now + waiting.needs <= m.ends_at
        ]
        if not able:
            unserved += 1
            continue
        chosen = next((m for m in able if m not in waiting.avoid), able[0])
        room[chosen] -= 1
        give.append((waiting, chosen))
    return tuple(give), unserved, yielded - {machine for _, machine in give}


def _take(
    view: PoolView, rules: PoolRules, unserved: int, now: float
) -> tuple[tuple[str, ...], int]:
    """Which of others' idle machines to take for those who got nothing, and how many that leaves."""
    able = [
        m
        for m in view.machines
        if not m.own and m.standing is Standing.PARKED and m.reachable and m.works(now)
        if m.idle_until is not None and m.idle_until > now
    ]
    able.sort(key=lambda m: (-m.since, m.id))
    coming = sum(m.own and m.standing is Standing.BOOTING and m.taken for m in view.machines)
    taken = able[: max(0, math.ceil(unserved / rules.jobs_per_machine) - coming)]
    return tuple(m.id for m in taken), max(0, unserved - len(taken) * rules.jobs_per_machine)


def _release(
    view: PoolView, target: int, *, warm: bool, full: bool, spared: set[str], now: float
) -> tuple[tuple[str, str], ...]:
    """Which idle machines to give up, and why.

    Args:
        full: somebody waits, and there is no place for one more machine.
        spared: those that have just got work, or are left to others.
    """
    working = [m for m in view.machines if m.works(now)]
    # Every process must come to the same: the machines that live longest are kept.
    kept = sorted(working, key=lambda m: (-m.retires_at, m.id))[:target]
    found: list[tuple[str, str]] = []
    for machine in view.machines:
        if not machine.own or not machine.idle or machine.id in spared:
            continue
        until = machine.idle_until
        if machine.wrong:
            found.append((machine.id, machine.wrong))
        elif now >= machine.retires_at:
            found.append((machine.id, "its lifetime is nearly over"))
        elif not warm:
            found.append((machine.id, "nothing is to be warm at this hour"))
        elif full:
            found.append((machine.id, "it does not live long enough for the job that waits"))
        elif until is not None and now >= until and machine not in kept:
            found.append((machine.id, f"idle for {now - machine.since:.0f} s"))
    return tuple(found)


def _rent(view: PoolView, rules: PoolRules, unserved: int, target: int, now: float) -> int:
    """How many machines to rent, for those who wait and for `target`."""
    if now < view.rent_after:
        return 0
    coming = sum(m.own and m.standing is Standing.BOOTING for m in view.machines)
    missing = math.ceil(unserved / rules.jobs_per_machine) - coming
    cold = target - sum(m.works(now) for m in view.machines) if now >= view.warm_after else 0
    return max(0, min(max(missing, cold), rules.max_machines - len(view.machines)))


# ---- what is known of the traffic ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """One job on a lease of the pool, in Unix seconds; one that has not ended goes on.

    Attributes:
        began: when it was wanted: what waits for a boot has begun already.
    """

    lease_id: str
    began: float
    ended: float | None


def gaps(uses: Iterable[Use]) -> Gaps:
    """The gaps between the uses of a pool's machines; jobs that overlap on one are one use of it."""
    merged: dict[str, list[tuple[float, float]]] = {}
    for use in sorted(uses, key=lambda use: use.began):
        spans = merged.setdefault(use.lease_id, [])
        ended = math.inf if use.ended is None else use.ended
        if spans and use.began < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], ended))
        else:
            spans.append((use.began, ended))
    moments = [
        (at, begins)
        for spans in merged.values()
        for span in spans
        for at, begins in ((span[0], True), (span[1], False))
        if at < math.inf
    ]
    found = Gaps()
    # Where one begins as another one ends, it may be that machine that it takes.
    for at, begins in sorted(moments):
        found.began(at) if begins else found.ended(at)
    return found


def cold_start(seen: Sequence[float], expected: float) -> float:
    """Seconds that the next cold start is taken to last.

    Args:
        seen: how long the newest ones of the pool took. expected: what is taken where there are none.
    """
    return median(seen) if seen else expected
