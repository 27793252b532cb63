"""One simulation, from its schedule to its verdict."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from gpubroker.errors import BrokerError
from gpubroker.ledger.ledger import Ledger
from gpubroker.model.events import Event
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseState
from gpubroker.model.money import Money
from gpubroker.model.requirements import Requirements
from gpubroker.policy.budget import Budget
from gpubroker.policy.policy import Policy
from gpubroker.settings import Settings
from gpubroker.testing.scripted import ScriptedCloud
from gpubroker.testing.simulation.determinism import repeatable
from gpubroker.testing.simulation.member import SimulatedBroker, plugin_for
from gpubroker.testing.simulation.oracle import Oracle, Violation
from gpubroker.testing.simulation.schedule import (
    HEALED,
    TROUBLE,
    CloudPlan,
    Errand,
    Fault,
    ProcessPlan,
    Schedule,
    draw,
)
from gpubroker.testing.simulation.world import Process, World
from gpubroker.testing.virtual_time import BackendName

#: Seconds after that by which every program has come to its end.
_PATIENCE: Final = 7200.0

_SWEEP_EVERY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one simulation.

    Attributes:
        log: one line for everything that happened, the same each time.
        violations: the promises that were broken; none, if all is well.
        leases: how many there were. seconds: how long it lasted, in its own time.
    """

    schedule: Schedule
    backend: BackendName
    log: tuple[str, ...]
    violations: tuple[Violation, ...]
    leases: int
    seconds: float

    @property
    def digest(self) -> str:
        """A hash of the log, to compare two runs by."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()

    @property
    def command(self) -> str:
        """What repeats it, byte for byte."""
        numbers = [number for number, _ in self.schedule.faults]
        every = len(numbers) == len(draw(self.schedule.seed).faults)
        only = "" if every else f" --only-faults {','.join(map(str, numbers)) or 'none'}"
        return (
            f"python -m gpubroker.testing.simulation --seed {self.schedule.seed}"
            f" --backend {self.backend}{only}"
        )


def simulate(
    seed: int, backend: BackendName = "asyncio", *, only_faults: Collection[int] | None = None
) -> Report:
    """Run the simulation of a seed.

    Args:
        only_faults: the numbers of those faults that are to happen; all where left out.
    """
    schedule = draw(seed)
    if only_faults is not None:
        schedule = schedule.with_faults(only_faults)
    with repeatable(backend, seed), _folder() as folder:
        return _Simulation(schedule, backend, folder).run()


@contextmanager
def _folder() -> Generator[Path]:
    """In memory where that is to be had: nothing there needs to outlive the process."""
    memory = Path("/dev/shm")  # noqa: S108
    parent = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gpubroker-simulation-", dir=parent) as folder:
        yield Path(folder)


class _Simulation:
    def __init__(self, schedule: Schedule, backend: BackendName, folder: Path) -> None:
        self._schedule = schedule
        self._backend: BackendName = backend
        self._folder = folder
        self._ledger = folder / "ledger.db"
        self.world = World()
        self._plans = {plan.name: plan for plan in schedule.clouds}
        self._clouds = {plan.name: self._cloud(plan) for plan in schedule.clouds}
        self.oracle = Oracle(self.world, self._clouds, schedule)
        self._done: dict[str, set[int]] = {plan.name: set() for plan in schedule.processes}
        self._waiting: dict[str, list[Fault]] = {plan.name: [] for plan in schedule.processes}

    def run(self) -> Report:
        """Trouble first, then health, then the verdict."""
        world = self.world
        ledger = Ledger(self._ledger, entropy=b"world")
        self.oracle.open(self._ledger)
        for _, fault in self._schedule.faults:
            if "operation" in fault.how:
                self._waiting[fault.where].append(fault)
            else:
                world.at(fault.at, partial(self._happens, fault))
        for plan in self._schedule.processes:
            world.at(plan.starts_at, partial(self._start, plan))
        world.at(HEALED, self._heal)
        world.run(HEALED + _PATIENCE + max(p.facts.late_create_watch for p in self._plans.values()))
        self.oracle.judge(ledger)
        leases = len(ledger.leases(open_only=False))
        for process in world.processes:
            process.kill()
        world.run(world.time)
        self.oracle.close()
        ledger.close()
        log = [line.replace(str(self._folder), "") for line in world.log]
        return Report(
            self._schedule,
            self._backend,
            tuple(log),
            tuple(self.oracle.found),
            leases,
            world.ended_at,
        )

    # ---- the world ------------------------------------------------------------------------

    def _cloud(self, plan: CloudPlan) -> ScriptedCloud:
        world = self.world
        cloud = ScriptedCloud(
            plan.name, now=world.true_time, facts=plan.facts, offers=plan.offers, waker=world.waker
        )
        cloud.visibility_lag(plan.lag)
        for offer_id, machines in plan.stock.items():
            cloud.stock(offer_id, machines)
        for seconds, code in plan.jobs:
            cloud.job_takes(seconds)
            cloud.job_exits(code)
        cloud.job_writes({"out.bin": _written(plan.name)}, until=float("inf"))
        for seconds in plan.boots:
            cloud.boot_takes(seconds)
        cloud.foreign_machine(f"{plan.name}-stranger")
        cloud.foreign_machine(f"{plan.name}-other", mark="gb1-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc")
        return cloud

    def _happens(self, fault: Fault) -> None:
        world = self.world
        world.note("FAULT", f"{fault.where}: {fault.what}")
        cloud = self._clouds.get(fault.where)
        if cloud is not None:
            how = dict(fault.how)
            if "until" in how:
                how["until"] += cloud.now()
            getattr(cloud, fault.what)(**how)
        elif fault.where == "world":
            world.jumped += fault.how["seconds"]
        else:
            for process in world.processes:
                if process.name == fault.where and not process.ended:
                    self._befalls(process, fault)

    def _befalls(self, process: Process, fault: Fault) -> None:
        """A fault of a process."""
        seconds = fault.how.get("seconds", 0.0)
        match fault.what:
            case "crash":
                process.kill()
                plan = next(p for p in self._schedule.processes if p.name == process.name)
                if plan.restarts is not None:
                    self.world.at(self.world.time + plan.restarts, partial(self._start, plan))
            case "pause":
                process.pause(seconds)
            case "ledger_busy":
                process.ledger_busy_until = self.world.time + seconds
            case _:
                process.ledger_broken_until = self.world.time + seconds

    def _operation(self, process: Process, what: str, after: bool) -> None:
        """A process touches the world: is it to be stopped here?"""
        for fault in self._waiting.get(process.name, ()):
            if fault.how["operation"] == process.operations and fault.how["after"] is after:
                self._waiting[process.name].remove(fault)
                if self.world.time < TROUBLE:
                    where = "after" if after else "before"
                    self.world.note("FAULT", f"{process.name}: {fault.what} {where} {what}")
                    self._befalls(process, fault)
                return

    def _heal(self) -> None:
        self.world.note("FAULT", "none any more")
        self.oracle.healed()
        for cloud in self._clouds.values():
            cloud.all_is_well()
        self._waiting.clear()
        reaper = Process(self.world, "reaper", "host-1", self._backend, self._reap)
        self.world.start(reaper)

    # ---- the programs ---------------------------------------------------------------------

    def _start(self, plan: ProcessPlan) -> None:
        self.world.note(plan.name, "starts")
        process = Process(
            self.world, plan.name, plan.host, self._backend, partial(self._program, plan)
        )
        process.on_operation = self._operation
        self.world.start(process)

    def _broker(self, process: Process, **options: Any) -> SimulatedBroker:
        def on_event(event: Event) -> None:
            if not process.killed:
                lease = f" [{event.lease_id}]" if event.lease_id else ""
                self.world.note(process.name, f"{event.kind}: {event.text}{lease}")
                self.oracle.event(process, event.text)

        return SimulatedBroker(
            process,
            self.oracle.commit,
            settings=Settings(
                ledger=self._ledger,
                budget=Budget(job=Money("1"), day=self._schedule.day_limit),
            ),
            plugins=[
                plugin_for(process, cloud, self._plans[name].latency, self.oracle.request)
                for name, cloud in self._clouds.items()
            ],
            on_event=on_event,
            now=self.world.wall_clock,
            seed=self._schedule.seed * 1000 + process.number,
            **options,
        )

    async def _program(self, plan: ProcessPlan, process: Process) -> None:
        async with (
            self._broker(process, close_wait=60.0) as broker,
            anyio.create_task_group() as tasks,
        ):
            for number, errand in enumerate(plan.errands):
                if number not in self._done[plan.name]:
                    tasks.start_soon(self._errand, process, broker, number, errand)

    async def _errand(
        self, process: Process, broker: SimulatedBroker, number: int, errand: Errand
    ) -> None:
        await anyio.sleep(errand.at)
        ended = "left"
        try:
            with anyio.move_on_after(errand.gives_up):
                await self._do(process, broker, errand)
                ended = "done"
        except BrokerError as error:
            ended = f"{type(error).__name__}: {error}"
        if not process.killed:
            self._done[process.name].add(number)
            self.world.note(process.name, f"errand {number}: {ended}")

    async def _do(self, process: Process, broker: SimulatedBroker, errand: Errand) -> None:
        job = Job(
            ["work"],
            outputs=["out.bin"] if errand.outputs else [],
            output_dir=self._folder / f"out-{process.number}-{id(errand)}",
            timeout=errand.timeout,
            retries=errand.retries,
        )
        options: dict[str, Any] = {
            "requirements": Requirements(gpu=errand.gpu),
            "policy": Policy(acquire_timeout=400.0, wait=errand.wait),
            "budget": errand.budget,
            "lifetime": errand.lifetime,
        }
        if not errand.jobs:
            result = await broker.run(job, **options)
            self.oracle.result(result, _written(result.provider) if errand.outputs else None)
            return
        async with broker.lease(**options) as lease:
            for _ in range(errand.jobs):
                result = await lease.run(job)
                self.oracle.result(result, _written(result.provider) if errand.outputs else None)
                await anyio.sleep(errand.pause)

    async def _reap(self, process: Process) -> None:
        """What `gpubroker reap --loop` does; it looks less often where nothing can happen."""
        async with self._broker(process, close_wait=60.0, sweep=False) as broker:
            while True:
                await broker.sweep()
                pause = self._until_next(process)
                if pause is None:
                    self.world.note(process.name, "has nothing left to do")
                    return
                await anyio.sleep(pause)

    def _until_next(self, reaper: Process) -> float | None:
        """Seconds until a sweep could find something; ``None`` if there is nothing left to find."""
        others = any(not p.ended for p in self.world.processes if p is not reaper)
        rows = self.oracle.rows("state NOT IN ('released', 'refused')")
        if others or any(row["state"] != LeaseState.LATE_WATCH for row in rows):
            return _SWEEP_EVERY
        now, ahead = self.world.true_time(), self.world.jumped
        late = [
            machine.visible_at
            for cloud in self._clouds.values()
            for machine in cloud.machines.values()
            if not machine.foreign and machine.ended_at > now
        ]
        over = [
            row["created_at"] - ahead + self._plans[row["provider"]].facts.late_create_watch
            for row in rows
        ]
        unsettled = self.oracle.rows(
            "state = 'released' AND settled_at IS NULL AND machine_id IS NOT NULL"
        )
        bills = [
            row["ended_at"] - ahead + self._plans[row["provider"]].facts.charges_after
            for row in unsettled
        ]
        moments = [moment for moment in (*late, *over, *bills) if moment > now - 600.0]
        return None if not moments else max(_SWEEP_EVERY, min(moments) - now + 1.0)


def _written(cloud: str) -> bytes:
    """What every job at a cloud writes."""
    return f"made by {cloud}".encode()
