"""What one simulation is made of, drawn from its seed: a world, the work in it, and its faults.

Everything here is data, so that a schedule can be printed, cut down, and run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, Self

from gpubroker.errors import ErrorKind, Scope
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.testing.offers import offer

Kind = Literal["leases", "pools"]
"""What the programs of a simulation do."""

#: Seconds in which faults begin.
TROUBLE: Final = 250.0

#: Seconds from the beginning at which everything works again.
HEALED: Final = 450.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudPlan:
    """One vendor.

    Attributes:
        lag: seconds for which a new machine is missing from its lists.
        stock: how many machines of an offer there are, by offer; unlimited where not said.
        latency: the longest that a request, or an answer, is on its way.
        jobs: seconds and exit code of the jobs that are run there, in order.
        boots: seconds that its machines boot, in order.
    """

    name: str
    facts: ProviderFacts
    offers: tuple[Offer, ...]
    lag: float
    stock: dict[str, int]
    latency: float
    jobs: tuple[tuple[float, int], ...]
    boots: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One thing that a process wants done.

    Attributes:
        at: seconds after its process has started.
        jobs: how many to run on one lease; 0 for a single `AsyncBroker.run`.
        pause: seconds between two of them.
        gives_up: seconds after which the caller leaves; ``None`` for a patient one.
    """

    at: float
    gpu: str
    jobs: int
    pause: float
    budget: str | None
    lifetime: float | None
    timeout: float | None
    retries: int
    outputs: bool
    wait: float
    gives_up: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """One program with a broker of its own; all of them share the ledger.

    Attributes:
        host: processes of one host know for certain when another one of them has ended.
        errands: what it wants done; it ends when that is.
        restarts: seconds after a crash at which it is started again; ``None`` if never.
        lingers: seconds for which it keeps its pool open when that is done.
    """

    name: str
    host: str
    starts_at: float
    errands: tuple[Errand, ...]
    restarts: float | None
    lingers: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: seconds from the beginning.
        where: the cloud or process that it happens to, or ``"world"``.
        what: for a cloud, a verb of `gpubroker.testing.ScriptedCloud`.
        how: its arguments. ``until`` is seconds after `at`.
    """

    at: float
    where: str
    what: str
    how: dict[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        how = ", ".join(f"{name}={_shown(value)}" for name, value in self.how.items())
        return f"{self.at:7.1f} s  {self.where}: {self.what}({how})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A whole simulation before it is run.

    Attributes:
        day_limit: USD that all leases of a day may cost.
        faults: in the order in which they were drawn; a number is a place in this order.
        drawn: how many faults there were then.
    """

    kind: ClassVar[Kind] = "leases"

    seed: int
    clouds: tuple[CloudPlan, ...]
    processes: tuple[ProcessPlan, ...]
    day_limit: Money | None
    faults: tuple[tuple[int, Fault], ...]
    drawn: int

    def with_faults(self, numbers: Collection[int]) -> Self:
        """The same with some of its faults alone."""
        return replace(self, faults=tuple(f for f in self.faults if f[0] in numbers))

    def described(self) -> list[str]:
        """The world, the work and the faults, for people."""
        lines = [f"seed {self.seed}, {self.day_limit or 'no limit'} a day"]
        for cloud in self.clouds:
            offers = ", ".join(f"{o.id} {o.price.hourly}/h" for o in cloud.offers)
            lines.append(f"{cloud.name}: {offers}; new machines listed after {cloud.lag:g} s")
        for process in self.processes:
            text = f"{len(process.errands)} errands from {process.starts_at:.1f} s"
            lines.append(f"{process.name} on {process.host}: {text}")
        return [*lines, *(f"#{number}: {fault}" for number, fault in self.faults)]


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    source = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    clouds = tuple(
        draw_cloud(source, f"cloud-{'abc'[n]}") for n in range(pick(source, 1, 1, 1, 2, 2, 3))
    )
    together = source.random() < 0.25
    processes = tuple(
        _process(source, n + 1, together) for n in range(pick(source, 1, 1, 2, 2, 3, 4))
    )
    limit = pick(source, None, None, None, "0.20", "0.50", "2")
    count = pick(source, 0, 1, 2, 3, 4, 5, 6, 8, 10, 14)
    faults = [draw_fault(source, clouds, processes) for _ in range(count)]
    return Schedule(
        seed=seed,
        clouds=clouds,
        processes=processes,
        day_limit=None if limit is None else Money(limit),
        faults=tuple(enumerate(faults)),
        drawn=count,
    )


# --------------------------------------------------------------------------------------------
# The world and the work
# --------------------------------------------------------------------------------------------


def draw_cloud(source: random.Random, name: str) -> CloudPlan:
    """A vendor."""
    horizon = pick(source, 0.0, 15.0, 30.0, 60.0)
    facts = ProviderFacts(
        paid=True,
        spot=True,
        visibility_horizon=horizon,
        absence_readings=pick(source, 2, 2, 3) if horizon else pick(source, 1, 2),
        late_create_watch=pick(source, 900.0, 3600.0, 14_400.0),
        boot_timeout=pick(source, 90.0, 180.0),
        poll_interval=pick(source, 4.0, 6.0, 10.0),
        billing_quantum=pick(source, 1.0, 1.0, 60.0, 3600.0),
        release_margin=pick(source, 60.0, 120.0),
        stopping_bills=source.random() < 0.8,
        charges_after=pick(source, 60.0, 600.0),
    )
    offers = tuple(_offer(source, name, n) for n in range(pick(source, 1, 2, 2, 3)))
    return CloudPlan(
        name=name,
        facts=facts,
        offers=offers,
        lag=round(source.uniform(0.0, horizon * 0.9), 1),
        stock={o.id: 1 for o in offers if source.random() < 0.2},
        latency=pick(source, 0.0, 0.2, 2.0),
        jobs=tuple(
            (pick(source, 0.0, 20.0, 60.0, 60.0, 150.0, 900.0), pick(source, 0, 0, 0, 0, 1))
            for _ in range(20)
        ),
        boots=tuple(pick(source, 0.0, 5.0, 20.0, 45.0) for _ in range(20)),
    )


def _offer(source: random.Random, cloud: str, number: int) -> Offer:
    gpu = "RTX 4090" if number == 0 else pick(source, "RTX 4090", "RTX 4090", "A100 80GB SXM")
    price = f"{source.randint(20, 150) / 100:.2f}"
    return offer(
        gpu,
        price,
        id=f"{cloud}-{number + 1}",
        vram=24.0 if gpu == "RTX 4090" else 80.0,
        disk_price=pick(source, "0", "0.01"),
        host=f"{cloud}-host-{number + 1}",
    )


def _process(source: random.Random, number: int, together: bool) -> ProcessPlan:
    return ProcessPlan(
        name=f"process-{number}",
        host=pick(source, "host-1", "host-1", "host-2"),
        starts_at=0.0 if together else round(source.uniform(0.0, 90.0), 1),
        errands=tuple(_errand(source) for _ in range(pick(source, 1, 1, 2, 3))),
        restarts=pick(source, None, 0.5, 20.0, 100.0),
    )


def _errand(source: random.Random) -> Errand:
    gives_up = round(source.uniform(0.0, 200.0), 1) if source.random() < 0.25 else None
    return Errand(
        at=pick(source, 0.0, round(source.uniform(0.0, 200.0), 1)),
        gpu=pick(source, "RTX 4090", "RTX 4090", "RTX 4090", "A100"),
        jobs=pick(source, 0, 0, 0, 1, 2, 3),
        pause=pick(source, 0.0, 10.0, 40.0),
        budget=pick(source, None, None, "0.05", "0.30"),
        lifetime=pick(source, None, 120.0, 240.0, 480.0),
        timeout=pick(source, None, None, 30.0),
        retries=pick(source, 0, 0, 1, 2),
        outputs=source.random() < 0.5,
        wait=pick(source, 0.0, 0.0, 120.0),
        gives_up=gives_up,
    )


# --------------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------------

_Draw = Callable[[random.Random, CloudPlan], dict[str, Any]]


def _while(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    del cloud
    return {"until": pick(source, 5.0, 30.0, 90.0, 200.0)}


def _some(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    del cloud
    return {"times": pick(source, 1, 1, 2, 4)}


def _refusal(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    kind = pick(
        source,
        ErrorKind.CAPACITY,
        ErrorKind.QUOTA,
        ErrorKind.CREDIT,
        ErrorKind.RATE_LIMIT,
        ErrorKind.TRANSIENT,
        ErrorKind.HOST_BROKEN,
        ErrorKind.BAD_REQUEST,
    )
    scope = pick(source, Scope.OFFER, Scope.HOST, Scope.PROVIDER)
    leaves = source.random() < 0.3
    return {"kind": kind, "scope": scope, "leaves_machine": leaves, **_some(source, cloud)}


def _late(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    watched = cloud.facts.late_create_watch
    return {"after": round(pick(source, 3.0, 100.0, watched / 4, watched * 0.8), 1)}


def _failing(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    kind = pick(source, ErrorKind.TRANSIENT, ErrorKind.RATE_LIMIT, ErrorKind.AUTH)
    return {"kind": kind, **_while(source, cloud)}


def _seconds(*choices: float) -> _Draw:
    def drawn(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
        del cloud
        return {"seconds": pick(source, *choices), "times": 1}

    return drawn


def _no_start(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    del source, cloud
    return {"message": "no such command"}


def _rise(source: random.Random, cloud: CloudPlan) -> dict[str, Any]:
    dearest = max(o.price.machine.amount for o in cloud.offers)
    price = f"{float(dearest) * source.uniform(1.1, 2.0):.2f}"
    return {"price": price, "silently": source.random() < 0.4}


#: Every verb of a story that is a fault, with how its arguments are drawn.
_OF_CLOUDS: Final[dict[str, _Draw]] = {
    "out_of_capacity": _while,
    "quote_fails": _failing,
    "quote_hangs": _while,
    "next_create_fails": _refusal,
    "next_create_loses_reply": lambda source, _: {"creates": source.random() < 0.7},
    "next_create_loses_reply ": _late,  # the same verb: a create that takes effect late
    "next_create_hangs": _some,
    "create_takes": _seconds(10.0, 60.0, 110.0, 150.0),
    "never_boots": _some,
    "boot_breaks": _some,
    "delivers": lambda source, _: {"gpu": pick(source, None, "RTX 3060"), "times": 1},
    "preempt_after": _seconds(0.0, 10.0, 60.0),
    "machine_vanishes": lambda source, _: {"after": pick(source, 0.0, 10.0, 40.0)},
    "release_fails": _failing,
    "release_does_nothing": _some,
    "release_hangs": _some,
    "release_takes": _seconds(5.0, 20.0, 29.0),
    "inventory_fails": _failing,
    "inventory_is_empty": _some,
    "inventory_hangs": _some,
    "inventory_takes": _seconds(5.0, 25.0),
    "revoke_key": _while,
    "job_fails_to_start": _no_start,
    "price_rises_to": _rise,
}

#: Faults that make a cloud lie about which machines there are.
LIES: Final = ("inventory_is_empty",)


def draw_fault(
    source: random.Random, clouds: tuple[CloudPlan, ...], processes: tuple[ProcessPlan, ...]
) -> Fault:
    """Something that goes wrong."""
    at = round(source.uniform(0.0, TROUBLE) * source.random(), 1)
    if source.random() < 0.6:
        return _of_cloud(source, pick(source, *clouds), at)
    if source.random() < 0.1:
        jump = pick(source, -3600.0, -120.0, 90.0, 3600.0, 36_000.0)
        return Fault(at=at, where="world", what="clock_jumps", how={"seconds": jump})
    return _of_process(source, pick(source, *processes).name, at)


def _of_cloud(source: random.Random, cloud: CloudPlan, at: float) -> Fault:
    # A single look is proof only at a vendor that never lies.
    known = [w for w in _OF_CLOUDS if cloud.facts.absence_readings > 1 or w not in LIES]
    what = pick(source, *known)
    how = _OF_CLOUDS[what](source, cloud)
    return Fault(at=at, where=cloud.name, what=what.strip(), how=how)


def _of_process(source: random.Random, name: str, at: float) -> Fault:
    what = pick(source, "crash", "crash", "pause", "pause", "ledger_busy", "ledger_unusable")
    how: dict[str, Any] = {}
    if what.startswith("ledger"):
        how = {"seconds": pick(source, 0.5, 5.0, 40.0, 150.0)}
        return Fault(at=at, where=name, what=what, how=how)
    if source.random() < 0.6:
        # At an operation on the ledger or a call of a provider, counted from the beginning.
        how = {"operation": pick(source, *range(1, 60)), "after": source.random() < 0.5}
        at = 0.0
    if what == "pause":
        how["seconds"] = pick(source, 20.0, 70.0, 130.0, 200.0)
    return Fault(at=at, where=name, what=what, how=how)


def pick(source: random.Random, *choices: Any) -> Any:
    """One of several; what is there twice is twice as likely."""
    return choices[int(source.random() * len(choices))]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
