"""The scripted cloud's own books: which machines there are, and what each has cost, exactly.

They are worked out from moments alone, independently of the code under test.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from typing import Final

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, MachineState, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Price
from gpubroker.model.results import Outcome
from gpubroker.testing.script import Boot, reached

_MICROSECOND: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """One create that the cloud received.

    Attributes:
        at: Unix seconds.
        machine_id: the machine it made, ``None`` if it made none.
    """

    at: float
    offer_id: str
    order: Order
    machine_id: str | None


@dataclass(slots=True, kw_only=True)
class DestroyRequest:
    """One destroy that the cloud received.

    Attributes:
        at: Unix seconds.
        accepted: whether the cloud said yes.
    """

    at: float
    machine_id: str
    accepted: bool = False


@dataclass(slots=True, kw_only=True)
class JobRun:
    """One job that the cloud started.

    Attributes:
        started_at: Unix seconds. ended_at: likewise, ``None`` while it runs.
        env: the environment it was given, secrets included.
        in_home: it ran in the machine's home folder, as set-up does.
        outcome: what was reported; ``None`` while it runs, and if it was cancelled or lost.
    """

    started_at: float
    machine_id: str
    job: Job
    job_id: str
    env: dict[str, str] = field(repr=False)
    in_home: bool
    ended_at: float | None = None
    outcome: Outcome | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class RentedMachine:
    """One machine of the account. Moments are Unix seconds; what never comes is infinity."""

    id: str
    offer_id: str
    price: Price
    created_at: float
    visible_at: float
    boot: Boot
    mark: str | None = None
    host: str | None = None
    foreign: bool = False
    preempted_at: float = math.inf
    vanished_at: float = math.inf
    destroyed_at: float = math.inf
    #: From when on it costs how many USD per hour, disk aside.
    dearer: tuple[float, Money] = (math.inf, Money(0))
    #: Called when it is destroyed, so that jobs on it notice; by job.
    watchers: dict[str, Callable[[], None]] = field(default_factory=dict[str, Callable[[], None]])

    @property
    def up_at(self) -> float:
        """When it is usable."""
        ends_well = self.boot.ends_as is MachineState.RUNNING
        return self.created_at + self.boot.seconds if ends_well else math.inf

    @property
    def ended_at(self) -> float:
        """When it is gone, by whatever cause."""
        return min(self.vanished_at, self.destroyed_at)

    @property
    def lost_at(self) -> float:
        """When a job on it is lost."""
        return min(self.preempted_at, self.ended_at)

    def price_at(self, at: float) -> Price:
        """What it costs."""
        moment, price = self.dearer
        return replace(self.price, machine=price) if reached(moment, at) else self.price

    def exists(self, at: float) -> bool:
        """Whether it exists and bills."""
        return reached(self.created_at, at) and not reached(self.ended_at, at)

    def state(self, at: float) -> MachineState:
        """What the vendor says of it."""
        if reached(self.ended_at, at):
            return MachineState.GONE
        if reached(self.preempted_at, at):
            return MachineState.STOPPED
        booted = reached(self.created_at + self.boot.seconds, at)
        return self.boot.ends_as if booted else MachineState.BOOTING

    def destroy(self, at: float) -> None:
        """End it; again is no error."""
        self.destroyed_at = min(self.destroyed_at, at)
        for notice in tuple(self.watchers.values()):
            notice()

    def seen(self, at: float) -> Machine:
        """The row of an inventory."""
        state = self.state(at)
        progress = str(state)
        if state is MachineState.BOOTING and self.boot.progress_every is not None:
            progress = f"step {int((at - self.created_at) / self.boot.progress_every)}"
        return Machine(
            id=self.id,
            state=state,
            mark=self.mark,
            hourly=self.price_at(at).hourly,
            created_at=self.created_at,
            progress=progress,
            host=self.host,
        )

    def billed(self, at: float, facts: ProviderFacts) -> Money:
        """USD that it has cost: the full price while it ran, its disk alone once preempted."""
        end = min(at, self.ended_at)
        full = _billed_seconds(self.created_at, min(end, self.preempted_at), facts)
        halted = (
            _billed_seconds(self.preempted_at, end, facts) if facts.stopping_bills else Decimal(0)
        )
        price = self.price_at(end)
        # One division, at the end: nothing before it rounds.
        return (price.hourly * full + price.disk * halted) / 3600


def _billed_seconds(start: float, end: float, facts: ProviderFacts) -> Decimal:
    if end <= start:
        return Decimal(0)
    quantum = Decimal(str(facts.billing_quantum))
    seconds = Decimal(end - start).quantize(_MICROSECOND)
    return (seconds / quantum).to_integral_value(ROUND_CEILING) * quantum


def _ended_at(machine: RentedMachine) -> float:
    return machine.ended_at


@dataclass(slots=True)
class Books:
    """Every machine the account ever had, and every request that reached the cloud."""

    machines: dict[str, RentedMachine] = field(default_factory=dict[str, RentedMachine])
    creates: list[CreateRequest] = field(default_factory=list[CreateRequest])
    destroys: list[DestroyRequest] = field(default_factory=list[DestroyRequest])
    runs: list[JobRun] = field(default_factory=list[JobRun])
    _current: list[RentedMachine] = field(default_factory=list[RentedMachine])
    #: Those that have ended, in the order in which they did.
    _ended: list[RentedMachine] = field(default_factory=list[RentedMachine])
    _marks: set[str] = field(default_factory=set[str])
    _jobs: dict[str, JobRun] = field(default_factory=dict[str, JobRun])

    def add(self, machine: RentedMachine) -> None:
        """One more machine of the account."""
        self.machines[machine.id] = machine
        self._current.append(machine)

    def current(self, at: float) -> list[RentedMachine]:
        """Every machine that has not ended, in the order in which they came; some are to come."""
        ended = [machine for machine in self._current if reached(machine.ended_at, at)]
        for machine in ended:
            insort(self._ended, machine, key=_ended_at)
        if ended:
            self._current = [m for m in self._current if not reached(m.ended_at, at)]
        return self._current

    def since(self, since: float, at: float) -> list[RentedMachine]:
        """Every machine that had not ended by `since`; some are to come."""
        current = self.current(at)
        return [*self._ended[bisect_left(self._ended, since, key=_ended_at) :], *current]

    def existing(self, at: float, *, foreign: bool = False) -> Iterator[RentedMachine]:
        """The machines that exist and bill: those that were ordered here, or the others."""
        return (m for m in self.current(at) if m.exists(at) and m.foreign is foreign)

    def create(self, request: CreateRequest) -> None:
        """A create was received."""
        self.creates.append(request)
        self._marks.add(request.order.mark)

    def asked_before(self, mark: str) -> bool:
        """Whether a create with this mark was received."""
        return mark in self._marks

    def start(self, run: JobRun) -> None:
        """A job was started."""
        self.runs.append(run)
        self._jobs[run.job_id] = self._jobs[run.machine_id] = run

    def latest(self, of: str) -> JobRun | None:
        """The latest run of a job, or on a machine, by its id."""
        return self._jobs.get(of)

    def billed(self, at: float, facts: ProviderFacts) -> Money:
        """USD that the machines ordered here have cost."""
        bills = (m.billed(at, facts) for m in self.machines.values() if not m.foreign)
        return sum(bills, Money(0))
