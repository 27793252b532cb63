"""Pools that several brokers share through one ledger: one of them has each machine at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import AsyncBroker, AsyncPool, Event, EventKind, Requirements, Result, fixed
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@asynccontextmanager
async def two_pools(
    broker_on: MakeBroker, cloud: ScriptedCloud, place: Path, **options: Any
) -> AsyncGenerator[tuple[AsyncPool, AsyncPool, AsyncBroker]]:
    """The same pool, opened by two brokers; the second of these is given too."""
    options = {"name": "images", "keep_warm": fixed(600), **options}
    async with (
        broker_on(cloud, ledger=place) as one,
        broker_on(cloud, ledger=place, seed=2) as two,
        one.pool(A_4090, **options) as first,
        two.pool(A_4090, **options) as second,
    ):
        yield first, second, two


def alarms(events: list[Event]) -> list[str]:
    return [event.text for event in events if event.kind is EventKind.ALARM]


async def test_what_one_has_left_idle_the_other_one_takes(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """To and fro, with one machine, quietly; and at the end it is given up once."""
    cloud.boot_takes(60, times=9)
    cloud.job_takes(10, times=9)

    async with two_pools(broker_on, cloud, place) as (first, second, broker):
        used: list[Result] = []
        for pool in (first, second, first, second, second):
            used.append(await pool.run(["x"]))
            await anyio.sleep(30)
        waited = [result.timings.acquire for result in used]

        assert await broker.verify() == []
    assert len({result.lease_id for result in used}) == 1
    assert len(cloud.creates) == 1
    assert waited[0] >= 60
    assert max(waited[1:]) < 15
    assert alarms(events) == []
    cloud.assert_nothing_running()
    cloud.assert_contract_kept()


async def test_together_they_have_no_more_machines_than_allowed(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """Both want one at the same moment; one is rented, and all jobs are done in turn."""
    cloud.create_takes(3, times=9)
    cloud.boot_takes(60, times=9)
    cloud.job_takes(20, times=99)
    results: list[Result] = []

    async def work(pool: AsyncPool) -> None:
        results.append(await pool.run(["x"]))

    async with (
        two_pools(broker_on, cloud, place) as (first, second, _),
        anyio.create_task_group() as tasks,
    ):
        for _ in range(4):
            tasks.start_soon(work, first)
            tasks.start_soon(work, second)

    assert len(results) == 8
    assert len(cloud.creates) == 1
    assert max(result.timings.acquire for result in results) < 600
    assert alarms(events) == []


async def test_idle_machines_do_not_add_up(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """Of both processes' machines so many are kept warm as are to be, and not twice as many."""
    async with two_pools(
        broker_on, cloud, place, min_warm=1, max_machines=2, keep_warm=fixed(60)
    ) as (first, second, _):
        await anyio.sleep(200)
        await second.run(["x"])
        await first.run(["x"])
        await anyio.sleep(400)
        states = [await first.status(), await second.status()]

        assert len(cloud.running) == 1
    assert sum(state.warm for state in states) == 1


async def test_another_kind_of_machine_is_not_taken(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """A pool of the same name that wants something else does without, but counts it."""
    async with (
        broker_on(cloud, ledger=place) as one,
        broker_on(cloud, ledger=place, seed=2) as two,
        one.pool(A_4090, name="images", max_machines=2) as first,
        two.pool(Requirements(gpu="A100"), name="images", max_machines=2) as second,
    ):
        small = await first.run(["x"])
        large = await second.run(["x"])
        status = await second.status()

    assert small.lease_id != large.lease_id
    assert status.others == 1


async def test_one_process_alone_does_not_keep_the_other_from_its_turn(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """However much the one has to do, who has waited for longest is next."""
    cloud.job_takes(30, times=999)
    order: list[str] = []

    async def work(pool: AsyncPool, name: str) -> None:
        await pool.run(["x"])
        order.append(name)

    async with (
        two_pools(broker_on, cloud, place) as (first, second, _),
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(work, first, "first")
        await anyio.sleep(5)
        tasks.start_soon(work, second, "second")
        await anyio.sleep(5)
        for _ in range(5):
            tasks.start_soon(work, first, "late")

    assert order[:4] == ["first", "first", "first", "second"]
    assert len(cloud.creates) == 1


async def test_a_machine_that_another_process_asks_back_is_not_used_again(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """As by the panic button: the next job gets another one."""
    # A machine is proven gone a minute after its start at the earliest, and this one is quick.
    async with (
        broker_on(cloud, ledger=place, close_wait=120) as one,
        broker_on(cloud, ledger=place, seed=2) as two,
        one.pool(A_4090, keep_warm=fixed(600)) as pool,
    ):
        first = await pool.run(["x"])
        await two.release(first.lease_id)
        second = await pool.run(["y"])

    assert first.lease_id != second.lease_id
    assert second.ok
    assert alarms(events) == []
    cloud.assert_nothing_running()
