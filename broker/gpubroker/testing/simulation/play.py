"""One simulation under way: its clouds, its faults, and the programs in it."""

from __future__ import annotations

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
from gpubroker.testing.simulation.member import SimulatedBroker, plugin_for
from gpubroker.testing.simulation.oracle import Oracle
from gpubroker.testing.simulation.report import Report
from gpubroker.testing.simulation.schedule import (
    HEALED,
    TROUBLE,
    CloudPlan,
    Errand,
    Fault,
    ProcessPlan,
    Schedule,
)
from gpubroker.testing.simulation.world import Process, World
from gpubroker.testing.virtual_time import BackendName

#: Seconds after that by which every program has come to its end.
_PATIENCE: Final = 7200.0

_SWEEP_EVERY: Final = 30.0


class Simulation:
    """One simulation under way.

    Attributes:
        world: its time, its processes and its log.
        oracle: what is to judge it.
    """

    def __init__(self, schedule: Schedule, backend: BackendName, folder: Path) -> None:
        self._schedule = schedule
        self._backend: BackendName = backend
        self._folder = folder
        self._ledger = folder / "ledger.db"
        self.world = World()
        self._plans = {plan.name: plan for plan in schedule.clouds}
        self._clouds = {plan.name: self._cloud(plan) for plan in schedule.clouds}
        self.oracle = self._judge()
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

    def _judge(self) -> Oracle:
        """Who judges it."""
        return Oracle(self.world, self._clouds, self._schedule)

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
        cloud.job_writes({"out.bin": written(plan.name)}, until=float("inf"))
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
            operation = fault.how["operation"]
            if operation in (process.operations, what) and fault.how["after"] is after:
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
            self.oracle.result(result, written(result.provider) if errand.outputs else None)
            return
        async with broker.lease(**options) as lease:
            for _ in range(errand.jobs):
                result = await lease.run(job)
                self.oracle.result(result, written(result.provider) if errand.outputs else None)
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


def written(cloud: str) -> bytes:
    """What every job at a cloud writes."""
    return f"made by {cloud}".encode()
