"""What a pool would have done with some traffic: its own rules, replayed in virtual time."""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gpubroker.errors import InvalidValue
from gpubroker.policy.keep_warm import Gaps, KeepWarm
from gpubroker.policy.schedule import Schedule

_NOBODY: Final = -1


class Arrival(NamedTuple):
    """A request: when it comes, in Unix seconds, and for how many seconds it needs a machine."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """What decides how many machines are there.

    Attributes:
        name: what it is called.
        keep: how long a machine is kept that has become idle.
        warm: so many are kept whatever `keep` says, while the schedule allows any.
        schedule: when machines may be warm; outside, each ends with its request. ``None``: always.
        stops: whether machines are stopped, their disks kept and billed, and not given up.
    """

    name: str
    keep: KeepWarm
    warm: int = 0
    schedule: Schedule | None = None
    stops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What holds for every strategy.

    Attributes:
        since: Unix seconds at which it begins.
        until: when it ends, at the earliest: the last request is always finished.
        cold_start: seconds from asking for a machine until it works, all of them billed.
        resume: the same for a machine that had been stopped.
        most: how many machines there may be at a time; who comes then waits in line.

    Raises:
        InvalidValue: there may be no machine, or a time makes no sense.
    """

    since: float
    until: float
    cold_start: float
    resume: float
    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InvalidValue("machines", self.most, "must be 1 or more")
        if not 0 <= self.resume <= self.cold_start < math.inf:
            raise InvalidValue(
                "cold_start", self.cold_start, "must be finite, and not below resume"
            )
        if not self.since < self.until < math.inf:
            raise InvalidValue("until", self.until, "must be after the beginning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What happened.

    Attributes:
        waits: seconds that each request waited for its machine, in the order in which they began.
        latencies: seconds from each request to its result, in the same order.
        held: seconds for which each machine was billed, from being asked for.
        cold: how many requests had a machine started for them.
        working: seconds of work.
        stopped: seconds for which disks of stopped machines were kept, all together.
    """

    waits: Sequence[float]
    latencies: Sequence[float]
    held: Sequence[float]
    cold: int
    working: float
    stopped: float

    @property
    def overhead(self) -> float:
        """Seconds billed for booting and idling."""
        return math.fsum(self.held) - self.working


def clairvoyant(arrivals: Iterable[Arrival], cold_start: float) -> float:
    """The least seconds of booting and idling that serve these arrivals without a wait.

    A request takes the machine that has been idle for the shortest time, since costs are concave
    in the gap; and a machine is kept for a gap if that is shorter than a cold start.
    """
    least, idle = 0.0, list[float]()
    for at, begins in _edges(arrivals):
        if not begins:
            idle.append(at)
        else:
            least += min(at - idle.pop(), cold_start) if idle else cold_start
    return least


def _edges(arrivals: Iterable[Arrival]) -> list[tuple[float, bool]]:
    """When each request begins and ends; at one moment, ends come first."""
    edges = [(each.at, True) for each in arrivals]
    edges += [(each.at + each.seconds, False) for each in arrivals if each.seconds > 0]
    return sorted(edges)


def replay(arrivals: Iterable[Arrival], strategy: Strategy, ground: Ground) -> Replayed:
    """What a pool with this strategy would have done; it knows nothing of the future.

    Requests are served in the order in which they come. One that finds no idle machine has one
    started, as far as there may be more, and takes whichever is free first.
    """
    return _Pool(strategy, ground).run(arrivals)


class _What(enum.IntEnum):
    """Events, in the order in which they count at one moment."""

    FREE = 0
    ARRIVAL = 1
    EXPIRY = 2
    TURN = 3


#: When, what, which machine, and the request that came or is done.
_Event = tuple[float, _What, int, Arrival | None]


@dataclass(slots=True)
class _Pool:
    strategy: Strategy
    ground: Ground
    gaps: Gaps = field(default_factory=Gaps)
    events: list[_Event] = field(default_factory=list[_Event])
    #: The machines that there are, and when each was asked for.
    asked: dict[int, float] = field(default_factory=dict[int, float])
    #: The idle ones, the newest last, and until when each is kept.
    idle: dict[int, float] = field(default_factory=dict[int, float])
    booting: int = 0
    line: deque[Arrival] = field(default_factory=deque[Arrival])
    #: When each of those was stopped that are stopped.
    disks: list[float] = field(default_factory=list[float])
    waits: list[float] = field(default_factory=list[float])
    latencies: list[float] = field(default_factory=list[float])
    held: list[float] = field(default_factory=list[float])
    cold: int = 0
    working: float = 0.0
    stopped: float = 0.0

    def run(self, arrivals: Iterable[Arrival]) -> Replayed:
        self.events = [(each.at, _What.ARRIVAL, _NOBODY, each) for each in arrivals]
        self.events += [(at, _What.TURN, _NOBODY, None) for at in self._turns()]
        heapq.heapify(self.events)
        end = self.ground.until
        while self.events:
            now, what, machine, arrival = heapq.heappop(self.events)
            match what:
                case _What.FREE:
                    end = max(end, now)
                    self._free(now, machine, booted=arrival is None)
                case _What.ARRIVAL if arrival is not None:
                    self._arrived(now, arrival)
                case _What.EXPIRY if now < end:
                    self._expired(now, machine)
                case _What.TURN:
                    self._turned(now)
                case _:
                    pass
        for machine in list(self.idle):
            self._release(end, machine)
        return Replayed(
            waits=self.waits,
            latencies=self.latencies,
            held=self.held,
            cold=self.cold,
            working=self.working,
            stopped=self.stopped + sum(end - since for since in self.disks),
        )

    def _turns(self) -> Iterator[float]:
        """When machines that nobody uses may have to start, or to end."""
        now, schedule = self.ground.since, self.strategy.schedule
        yield now
        if schedule is None:
            return
        lead = self.ground.cold_start if schedule.lead is None else schedule.lead
        while (now := schedule.next_change(now)) < self.ground.until:
            yield max(self.ground.since, now - lead)
            yield now

    def _warm(self, now: float) -> bool:
        schedule = self.strategy.schedule
        return schedule is None or schedule.warm_wanted(now, self.ground.cold_start)

    def _turned(self, now: float) -> None:
        if self._warm(now):
            while len(self.asked) < min(self.strategy.warm, self.ground.most):
                self._start(now)
        else:
            for machine in list(self.idle):
                self._release(now, machine)

    def _arrived(self, now: float, arrival: Arrival) -> None:
        if self.idle:
            self.gaps.began(now)
            self._serve(now, self.idle.popitem()[0], arrival)
            return
        self.line.append(arrival)
        if self.booting < len(self.line) and len(self.asked) < self.ground.most:
            self.gaps.began(now)
            self.cold += 1
            self._start(now)

    def _start(self, now: float) -> None:
        takes = self.ground.cold_start
        if self.disks:
            self.stopped += now - self.disks.pop()
            takes = self.ground.resume
        machine = len(self.held) + len(self.asked)
        self.asked[machine] = now
        self.booting += 1
        heapq.heappush(self.events, (now + takes, _What.FREE, machine, None))

    def _serve(self, now: float, machine: int, arrival: Arrival) -> None:
        wait = now - arrival.at
        self.waits.append(wait)
        self.latencies.append(wait + arrival.seconds)
        self.working += arrival.seconds
        heapq.heappush(self.events, (now + arrival.seconds, _What.FREE, machine, arrival))

    def _free(self, now: float, machine: int, *, booted: bool) -> None:
        self.booting -= booted
        if self.line:
            self._serve(now, machine, self.line.popleft())
            return
        self.gaps.ended(now)
        self.idle[machine] = now
        if not self._warm(now):
            self._release(now, machine)
            return
        again = self.ground.resume if self.strategy.stops else self.ground.cold_start
        self.idle[machine] = until = now + self.strategy.keep(self.gaps, again)
        heapq.heappush(self.events, (until, _What.EXPIRY, machine, None))

    def _expired(self, now: float, machine: int) -> None:
        if self.idle.get(machine) == now and len(self.asked) > self.strategy.warm:
            self._release(now, machine)

    def _release(self, now: float, machine: int) -> None:
        del self.idle[machine]
        self.held.append(now - self.asked.pop(machine))
        if self.strategy.stops:
            self.disks.append(now)
