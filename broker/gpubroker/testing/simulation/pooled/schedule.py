"""What a simulation of a pool is made of, drawn from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from gpubroker.model.money import Money
from gpubroker.testing.simulation.schedule import (
    CloudPlan,
    Errand,
    Fault,
    Kind,
    ProcessPlan,
    Schedule,
    draw_cloud,
    draw_fault,
    pick,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """The pool that all programs open.

    Attributes:
        kept: seconds for which an idle machine is kept; ``None`` for as long as breaks even.
        queue: how many may wait in a process. wait: seconds that each of them may.
        lifetime: seconds that a machine may live.
        day_limit: USD that its machines may cost a day.
        health: idle machines are asked whether they are well.
        activity: what an idle time begins with.
    """

    kept: float | None
    min_warm: int
    max_machines: int
    jobs_per_machine: int
    queue: int
    wait: float
    lifetime: float
    day_limit: Money | None
    health: bool
    activity: str

    def __str__(self) -> str:
        kept = "while that breaks even" if self.kept is None else f"for {self.kept:g} s"
        return (
            f"the pool: {self.max_machines} machines at the most, each for {self.lifetime:g} s and"
            f" {self.jobs_per_machine} jobs, {self.min_warm} always warm, idle ones kept {kept};"
            f" {self.day_limit or 'no limit'} a day; {self.queue} may wait for {self.wait:g} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledSchedule(Schedule):
    """A whole simulation of a pool before it is run.

    What an errand says of its own machine and money does not count: the pool's terms do.
    """

    kind: ClassVar[Kind] = "pools"

    pool: PoolPlan

    def described(self) -> list[str]:
        """The world, the pool, the work and the faults, for people."""
        first, *rest = Schedule.described(self)
        return [first, str(self.pool), *rest]


def draw_pooled(seed: int) -> PooledSchedule:
    """The schedule of a seed."""
    source = random.Random(f"pools {seed}")  # noqa: S311 - to be repeated, not to be secret
    clouds = tuple(
        _cloud(source, f"cloud-{'abc'[n]}") for n in range(pick(source, 1, 1, 1, 2, 2, 3))
    )
    pool = _pool(source)
    processes = tuple(_process(source, n + 1) for n in range(pick(source, 2, 2, 3)))
    limit = pick(source, None, None, None, None, None, "0.80", "2", "4")
    count = pick(source, 0, 1, 2, 3, 4, 5, 6, 8, 10, 14)
    faults = [draw_fault(source, clouds, processes) for _ in range(count)]
    faults += [_aimed(source, processes) for _ in range(min(count, pick(source, 0, 1, 2)))]
    return PooledSchedule(
        seed=seed,
        clouds=clouds,
        processes=processes,
        day_limit=None if limit is None else Money(limit),
        faults=tuple(enumerate(faults)),
        drawn=len(faults),
        pool=pool,
    )


#: Operations in the midst of which a pool may be stopped, or ended.
_AIMED: Final = (
    "ledger.reserve",
    "ledger.begin_job",
    "ledger.end_job",
    "ledger.park",
    "ledger.take",
    "ledger.take",
    "ledger.extend",
    "ledger.request_release",
    "ledger.take_over",
)


def _aimed(source: random.Random, processes: tuple[ProcessPlan, ...]) -> Fault:
    """A process stops, or ends, where it does something for the first time."""
    how: dict[str, Any] = {"operation": pick(source, *_AIMED), "after": source.random() < 0.5}
    what = pick(source, "crash", "pause")
    if what == "pause":
        how["seconds"] = pick(source, 3.0, 20.0, 70.0, 130.0, 200.0)
    return Fault(at=0.0, where=pick(source, *processes).name, what=what, how=how)


def _cloud(source: random.Random, name: str) -> CloudPlan:
    """A vendor, whose jobs are short enough for machines to change hands often."""
    jobs = tuple(
        (pick(source, 0.0, 5.0, 20.0, 20.0, 60.0, 60.0, 150.0, 400.0), pick(source, 0, 0, 0, 0, 1))
        for _ in range(40)
    )
    return replace(draw_cloud(source, name), jobs=jobs)


def _pool(source: random.Random) -> PoolPlan:
    machines = pick(source, 1, 1, 1, 2, 2, 3)
    limit = pick(source, None, None, None, None, "0.80", "1.50", "3")
    return PoolPlan(
        kept=pick(source, None, None, 0.0, 10.0, 30.0, 60.0, 60.0, 120.0),
        min_warm=pick(source, 0, 0, 0, 1),
        max_machines=machines,
        jobs_per_machine=pick(source, 1, 1, 1, 2),
        queue=pick(source, 1, 4, 100),
        wait=pick(source, 60.0, 200.0, 600.0),
        lifetime=pick(source, 240.0, 600.0, 1200.0, 43_200.0, 43_200.0),
        day_limit=None if limit is None else Money(limit),
        health=source.random() < 0.25,
        activity=pick(source, "jobs", "use"),
    )


def _process(source: random.Random, number: int) -> ProcessPlan:
    return ProcessPlan(
        name=f"process-{number}",
        host=pick(source, "host-1", "host-1", "host-1", "host-2"),
        starts_at=round(source.uniform(0.0, 60.0), 1),
        errands=tuple(_errand(source) for _ in range(pick(source, 1, 2, 3, 4, 6, 8))),
        restarts=pick(source, None, 0.5, 20.0, 100.0),
        lingers=pick(source, 0.0, 60.0, 200.0, 400.0),
    )


def _errand(source: random.Random) -> Errand:
    gives_up = round(source.uniform(0.0, 200.0), 1) if source.random() < 0.15 else None
    return Errand(
        at=round(source.uniform(0.0, pick(source, 30.0, 200.0, 500.0)), 1),
        gpu="RTX 4090",
        jobs=pick(source, 0, 0, 0, 0, 1, 2),
        pause=pick(source, 0.0, 10.0, 40.0),
        budget=None,
        lifetime=None,
        timeout=pick(source, None, None, 30.0, 120.0, 2400.0),
        retries=pick(source, 0, 0, 1, 2),
        outputs=source.random() < 0.5,
        wait=0.0,
        gives_up=gives_up,
    )
