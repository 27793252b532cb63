"""One simulation of a pool under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.lifecycle.pooling.pool import AsyncPool
from gpubroker.model.jobs import Job
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Result
from gpubroker.policy.budget import Limits
from gpubroker.policy.keep_warm import break_even, fixed
from gpubroker.policy.policy import Policy
from gpubroker.testing.simulation.play import Simulation, written
from gpubroker.testing.simulation.pooled.calls import Call
from gpubroker.testing.simulation.pooled.oracle import PooledOracle
from gpubroker.testing.simulation.pooled.schedule import PooledSchedule
from gpubroker.testing.simulation.schedule import Errand, ProcessPlan
from gpubroker.testing.simulation.world import Process
from gpubroker.testing.virtual_time import BackendName

#: What the pool is called.
POOL = "images"


class PooledSimulation(Simulation):
    """Programs that open one pool, all of them, and have their jobs done there."""

    def __init__(self, schedule: PooledSchedule, backend: BackendName, folder: Path) -> None:
        self._pooled = schedule
        self._pools: dict[int, AsyncPool] = {}
        super().__init__(schedule, backend, folder)

    def _judge(self) -> PooledOracle:
        self._judged = PooledOracle(self.world, self._clouds, self._pooled, POOL)
        return self._judged

    def _options(self) -> dict[str, Any]:
        """What the pool is opened with."""
        plan = self._pooled.pool
        return {
            "requirements": Requirements(gpu="RTX 4090"),
            "name": POOL,
            "policy": Policy(acquire_timeout=400.0),
            "budget": None if plan.day_limit is None else Limits(day=plan.day_limit),
            "keep_warm": break_even() if plan.kept is None else fixed(plan.kept),
            "min_warm": plan.min_warm,
            "max_machines": plan.max_machines,
            "jobs_per_machine": plan.jobs_per_machine,
            "queue": plan.queue,
            "wait": plan.wait,
            "lifetime": plan.lifetime,
            "health": ["true"] if plan.health else None,
            "activity": cast("Literal['jobs', 'use']", plan.activity),
        }

    async def _program(self, plan: ProcessPlan, process: Process) -> None:
        async with (
            self._broker(process, close_wait=60.0) as broker,
            broker.pool(**self._options()) as pool,
        ):
            self._pools[process.number] = pool
            async with anyio.create_task_group() as tasks:
                for number, errand in enumerate(plan.errands):
                    if number not in self._done[plan.name]:
                        tasks.start_soon(self._errand, process, broker, number, errand)
            await anyio.sleep(plan.lingers)

    async def _do(self, process: Process, broker: AsyncBroker, errand: Errand) -> None:
        del broker
        pool = self._pools[process.number]
        if not errand.jobs:
            call = self._judged.called(process)
            began = self.world.time
            result = await call.answered(pool.run(self._job(call, errand)))
            self._judged.waited(call, began, result.timings.acquire)
            self._got(result, errand)
            return
        async with pool.machine() as machine:
            borrowing = self._judged.borrowed()
            try:
                for _ in range(errand.jobs):
                    call = self._judged.called(process, borrowing)
                    result = await call.answered(machine.run(self._job(call, errand)))
                    self._got(result, errand)
                    await anyio.sleep(errand.pause)
            finally:
                self._judged.used(machine.lease.id)

    def _job(self, call: Call, errand: Errand) -> Job:
        return Job(
            ["work", str(call.number)],
            outputs=["out.bin"] if errand.outputs else [],
            output_dir=self._folder / f"out-{call.number}",
            timeout=errand.timeout,
            retries=errand.retries,
        )

    def _got(self, result: Result, errand: Errand) -> None:
        self.oracle.result(result, written(result.provider) if errand.outputs else None)
