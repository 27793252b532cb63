"""A month of an app's traffic: a hundred jobs a day, and one in a hundred meets a fault.

One broker is open all the time, as an app's is, in virtual time; two clouds, and a real scheduler
of jobs that overlap. The clouds' books are asked at the end whether anything was lost.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

import anyio

from benchmarks.figures import Figure
from gpubroker import AcquireError, AsyncBroker, Budget, JobError, Money, Requirements
from gpubroker.testing import Clouds, run_virtual
from gpubroker.testing.fault_schedules import draw

DAY: Final = 86_400.0
JOBS_A_DAY: Final = 100
_FAULTS: Final = 0.01
#: Seconds that a job takes: an image or a short clip.
_SHORTEST, _LONGEST = 5.0, 120.0
_BOOT: Final = 30.0


def month(days: int, home: Path) -> list[Figure]:
    """So many days; the processor's time is what is measured."""
    del home  # the ledger is in memory: how quick the disk is says nothing of a simulation
    began = time.process_time()
    endings = run_virtual("asyncio", _traffic, days)
    took = time.process_time() - began
    jobs = sum(endings.values())
    told = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    return [
        Figure(
            what=f"{days} days of {JOBS_A_DAY} jobs, {_FAULTS:.0%} faults",
            value=took,
            unit="s",
            limit=60.0 * days / 30,
            note=f"{jobs} jobs: {told}; {1000 * took / jobs:.1f} ms of the processor for each",
        )
    ]


async def _traffic(days: int) -> Counter[str]:
    source = random.Random(days)
    clouds = Clouds("first", "second", strict=False)
    endings: Counter[str] = Counter()
    for cloud in clouds.values():
        cloud.boot_takes(_BOOT, times=10**9)
    arrivals = sorted(source.uniform(0, days * DAY) for _ in range(days * JOBS_A_DAY))
    broker = clouds.async_broker(budget=Budget(day=Money(100)))
    zero = anyio.current_time()
    async with broker, anyio.create_task_group() as jobs:
        for arrival in arrivals:
            await anyio.sleep(zero + arrival - anyio.current_time())
            if source.random() < _FAULTS:
                draw(source).tell(source.choice(list(clouds.values())))
            jobs.start_soon(_job, broker, clouds, source.uniform(_SHORTEST, _LONGEST), endings)
    for cloud in clouds.values():
        cloud.all_is_well()
    clouds.assert_all_well()
    return endings


async def _job(broker: AsyncBroker, clouds: Clouds, seconds: float, endings: Counter[str]) -> None:
    for cloud in clouds.values():
        cloud.job_takes(seconds)
    wanted = Requirements(gpu="RTX 4090")
    try:
        result = await broker.run(["render"], wanted, lifetime=1800)
    except (AcquireError, JobError) as error:
        endings[type(error).__name__] += 1
    else:
        endings[str(result.state)] += 1
