"""Pools in trouble: machines are given up, limits hold, and whoever waits is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    AsyncLease,
    AsyncPool,
    BudgetExceeded,
    Event,
    InvalidValue,
    Job,
    JobState,
    LeaseReleased,
    Limits,
    Money,
    PoolTimeout,
    Requirements,
    Result,
    fixed,
)
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.lease_files import KeptReach, LeaseFiles
from gpubroker.lifecycle.pooling.idling import Idling
from gpubroker.testing import ScriptedCloud, VirtualWallClock, cancel_at, offer

from .conftest import MakeBroker
from .test_bad_ledger import full, read_only
from .test_pool_sharing import alarms, two_pools

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def into(results: list[Result], pool: AsyncPool, job: Job | str = "x") -> None:
    results.append(await pool.run(job))


# ---- a machine that another process had ----------------------------------------------------


async def test_what_each_machine_may_cost_holds_in_other_hands(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """Whoever takes it buys time for it within the same limit."""
    options: dict[str, Any] = {"keep_warm": fixed(20_000), "budget": "0.25"}

    async with two_pools(broker_on, cloud, place, **options) as (first, second, _):
        await first.run("x")
        await anyio.sleep(5)
        await second.run("x")
        await anyio.sleep(4 * 3600)

    assert len(cloud.creates) == 1
    assert cloud.billed <= Money("0.25")


async def test_a_job_on_a_machine_that_was_taken_costs_what_passed_since_the_last(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """And not the boot and the jobs before again, which others bear."""
    cloud.boot_takes(500)
    cloud.job_takes(10, times=9)

    async with two_pools(broker_on, cloud, place) as (first, second, _):
        costs: list[Money] = []
        for pool in (first, second, first):
            costs.append((await pool.run("x")).cost)
            await anyio.sleep(5)

    assert costs[0] > Money("0.05")
    assert max(costs[1:], key=lambda money: money.amount) < Money("0.002")


async def test_a_machine_that_is_kept_beyond_its_idle_limit_can_be_taken(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """It is warm for all who share the pool, not only for the one that keeps it."""
    async with two_pools(broker_on, cloud, place, keep_warm=fixed(60), min_warm=1) as (
        first,
        second,
        _,
    ):
        await first.run("x")
        await anyio.sleep(300)
        result = await second.run("x")

    assert result.timings.acquire < 20
    assert len(cloud.creates) == 1


async def test_no_more_machines_are_taken_than_are_needed(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """Those that are on their way count for those who came first."""
    cloud.job_takes(5, times=9)

    async with two_pools(broker_on, cloud, place, max_machines=3) as (first, second, broker):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(first.run, "x")
        await anyio.sleep(30)
        cloud.inventory_takes(5)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(second.run, "x")
                await anyio.sleep(1)
        rows = await broker.leases()

    assert sorted(row.epoch for row in rows) == [1, 2, 2]


async def test_a_machine_that_was_taken_and_is_not_reached_is_given_up(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, now: VirtualWallClock
) -> None:
    """Nobody can use it: its life is not made longer for that."""
    async with two_pools(broker_on, cloud, place, keep_warm=fixed(300)) as (first, second, _):
        await first.run("x")
        await anyio.sleep(30)
        cloud.inventory_fails(until=now() + 7200)
        with pytest.raises(PoolTimeout):
            await second.run("x")
        left = {machine.id for machine in cloud.running}

    assert cloud.creates[0].machine_id not in left


@pytest.mark.deep
async def test_cancelling_who_takes_a_machine_leaves_nothing_behind(
    now: VirtualWallClock, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """At every await of two processes that pass one machine to and fro."""
    point, reached = 0, True
    while reached:
        cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36", id="a")])
        cloud.boot_takes(7, times=9)
        cloud.job_takes(4, times=9)
        cloud.release_takes(5, times=9)
        cloud.inventory_takes(1, times=999)
        ledger = tmp_path / f"{point}.db"

        async def scenario(cloud: ScriptedCloud = cloud, ledger: Path = ledger) -> None:
            options: dict[str, Any] = {"keep_warm": fixed(20)}
            async with two_pools(broker_on, cloud, ledger, **options) as (first, second, _):
                for pool in (first, second, first):
                    await pool.run("x")

        reached = await cancel_at(point, scenario)

        cloud.assert_nothing_running()
        async with broker_on(cloud, ledger=ledger, seed=3) as later:
            assert await later.leases() == []
            assert await later.verify() == []
        point += 1
    assert point > 8


# ---- a job whose machine goes --------------------------------------------------------------


async def test_a_job_whose_machine_another_process_ends_is_started_again(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, now: VirtualWallClock
) -> None:
    """As after any loss: this process was taken for dead, and lives."""
    cloud.job_takes(100, times=9)
    results: list[Result] = []

    async with (
        broker_on(cloud, ledger=place) as broker,
        broker.pool(A_4090) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(into, results, pool, Job("x", retries=1))
        await anyio.sleep(30)
        another = Ledger(place, entropy=b"12345")
        (row,) = another.leases()
        another.take_over(row, "another", now(), "owner missing")
        another.close()

    assert [result.ok for result in results] == [True]
    assert len(cloud.creates) == 2


async def test_the_end_of_one_job_does_not_end_another_one_beside_it(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A machine that is to be given up, here for its price, goes with the last of its jobs."""
    cloud.job_takes(100)
    cloud.job_takes(500)
    results: list[Result] = []

    async with broker_on(cloud) as broker, broker.pool(A_4090, jobs_per_machine=2) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(into, results, pool)
            await anyio.sleep(30)
            (machine,) = cloud.machines
            cloud.machine_costs("0.50", machine)
        await anyio.sleep(30)
        left = len(cloud.running)

    assert [result.failure for result in results] == ["", ""]
    assert left == 0


async def test_a_machine_that_was_given_back_takes_no_job(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """It may be somebody else's by then, and is given up when idle, whatever runs on it."""
    async with broker_on(cloud) as broker, broker.pool(A_4090) as pool:
        async with pool.machine() as machine:
            pass
        with pytest.raises(LeaseReleased):
            await machine.run("x")

    assert cloud.runs == []


async def test_a_job_that_no_machine_lives_long_enough_for_is_refused(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """At once, where that can be said; and no machine after the other is rented for it."""
    cloud.boot_takes(400, times=9)
    cloud.job_takes(10, times=9)

    async with broker_on(cloud) as broker, broker.pool(A_4090, lifetime=3600) as pool:
        with pytest.raises(InvalidValue):
            await pool.run(Job("x", timeout=3500))
        result = await pool.run(Job("x", timeout=3150))

    assert result.ok
    assert len(cloud.creates) == 1


# ---- renting -------------------------------------------------------------------------------


async def test_a_machine_that_does_not_boot_makes_place_for_the_next(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """With room for one machine in the pool, other offers are tried all the same."""
    cloud.boot_breaks()
    cloud.release_takes(20, times=9)

    async with broker_on(cloud) as broker, broker.pool(A_4090) as pool:
        result = await pool.run("x")

    assert result.ok
    assert len(cloud.creates) == 2


async def test_who_can_rent_nothing_waits_for_a_machine_that_is_there(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """Also where it is another process's that runs a job on it."""
    cloud.withdraw_offer("dear")
    cloud.stock("cheap", 1)
    cloud.job_takes(100, times=9)
    results: list[Result] = []

    async with (
        two_pools(broker_on, cloud, place, max_machines=2) as (first, second, _),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(into, results, first)
        await anyio.sleep(30)
        await into(results, second)

    assert [result.ok for result in results] == [True, True]
    assert len({result.lease_id for result in results}) == 1


# ---- what cannot be done -------------------------------------------------------------------


def wrong(*_: Any) -> Any:
    raise RuntimeError("oops")


async def wrong_health(lease: AsyncLease) -> bool:
    raise RuntimeError(f"oops: {lease}")


class WrongHours:
    """Hours that cannot be read once a while has passed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._until = now, now() + 30

    def warm_wanted(self, now: float, cold_start: float) -> bool:
        return now < self._until or wrong(cold_start)

    def next_change(self, now: float) -> float:
        return self._until


@pytest.mark.parametrize("what", ["activity", "keep_warm", "health", "schedule"])
async def test_whatever_its_rules_raise_an_idle_machine_is_given_up(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock, what: str
) -> None:
    """A rule of the caller's that fails neither keeps a machine nor ends what runs on one."""
    rules: dict[str, Any] = {
        "activity": wrong,
        "keep_warm": wrong,
        "health": wrong_health,
        "schedule": WrongHours(now),
    }
    options: dict[str, Any] = {"keep_warm": fixed(60), what: rules[what]}

    async with broker_on(cloud) as broker, broker.pool(A_4090, **options) as pool:
        result = await pool.run("x")
        await anyio.sleep(900)
        left = len(cloud.running)

    assert result.ok
    assert left == 0


@pytest.mark.parametrize("spoil", [full, read_only])
async def test_an_idle_machine_is_given_up_though_the_ledger_cannot_be_written(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    place: Path,
    spoil: Callable[[AsyncBroker], None],
) -> None:
    """As long as it can be read there that nobody has taken the machine."""
    async with (
        broker_on(cloud, ledger=place, close_wait=10) as broker,
        broker.pool(A_4090, keep_warm=fixed(300)) as pool,
    ):
        await pool.run("x")
        await anyio.sleep(30)
        spoil(broker)
        await anyio.sleep(400)
        left = len(cloud.running)

    assert left == 0


async def test_who_leaves_while_the_pool_decides_disturbs_nobody(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a ledger that takes its time, what was seen before must not be acted on after."""

    async def slowly(*_: object) -> float:
        await anyio.sleep(1)
        return 60.0

    monkeypatch.setattr(Idling, "cold_start", slowly)
    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(600)) as pool:
        await pool.run("x")
        await anyio.sleep(20)
        with anyio.move_on_after(0.5):
            await pool.run("never")
        await anyio.sleep(20)
        last = await pool.run("x")

    assert last.ok
    assert len(cloud.runs) == 2
    assert alarms(events) == []


async def test_a_clock_that_goes_forward_ends_no_job_whose_machine_may_live_on(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """A laptop that slept beyond what was reserved: the money is reserved now, if limits allow."""
    cloud.job_takes(3000)
    results: list[Result] = []

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(into, results, pool)
        await anyio.sleep(100)
        now.jump(2400)

    assert [result.failure for result in results] == [""]


# ---- what held when it was tried ------------------------------------------------------------


async def test_a_clock_that_is_set_back_does_not_keep_an_idle_machine(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """Not for longer than its money was reserved for."""
    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(300)) as pool:
        await pool.run("x")
        await anyio.sleep(30)
        now.jump(-7200)
        await anyio.sleep(1800)

        assert not cloud.running


async def test_a_job_without_a_time_limit_ends_with_the_money(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """No more time is bought for it, and the limit holds to the cent."""
    cloud.job_takes(100_000)
    limits = Limits(day=Money("0.40"))

    async with broker_on(cloud) as broker, broker.pool(A_4090, budget=limits) as pool:
        result = await pool.run("x")

    assert not result.ok
    assert cloud.billed <= Money("0.40")


async def test_a_crowd_is_served_though_some_leave(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """By three machines of two processes; nobody is forgotten, none is rented beyond."""
    cloud.boot_takes(60, times=9)
    cloud.job_takes(3, times=99)
    results: list[Result] = []

    async def wait(pool: AsyncPool, patience: float) -> None:
        with anyio.move_on_after(patience):
            await into(results, pool)

    async with (
        two_pools(broker_on, cloud, place, max_machines=3) as (first, second, _),
        anyio.create_task_group() as tasks,
    ):
        for number in range(40):
            pool = first if number % 2 else second
            tasks.start_soon(wait, pool, 40 if number % 5 == 0 else 9999)

    assert len(results) == 32
    assert len(cloud.creates) == 3
    assert alarms(events) == []


async def test_the_limits_of_a_pool_end_with_it(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A second pool of its name has those that it is given, or none."""
    async with broker_on(cloud) as broker:
        async with broker.pool(A_4090, name="images", budget=Limits(total=Money("0.0001"))) as pool:
            with pytest.raises(BudgetExceeded):
                await pool.run(["x"])
        async with broker.pool(A_4090, name="images") as pool:
            result = await pool.run(["x"])

    assert result.ok


async def test_a_job_whose_end_nobody_saw_takes_its_machine_with_it(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What is given up long after its time-out may run still: the next job gets another machine."""
    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(600)) as pool:
        first = await pool.run("x")
        cloud.next_call_hangs("run")
        hung = await pool.run(Job(["y"], timeout=20))
        third = await pool.run("z")

    assert hung.state is JobState.TIMED_OUT
    assert hung.lease_id == first.lease_id
    assert third.ok
    assert third.lease_id != hung.lease_id
    cloud.assert_nothing_running()


@pytest.mark.parametrize("closed", [False, True])
async def test_who_waits_for_a_machine_that_others_end_gets_another_one(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    place: Path,
    now: VirtualWallClock,
    monkeypatch: pytest.MonkeyPatch,
    closed: bool,
) -> None:
    """As by a sweep that took a process for dead which was paused when its machine came up."""
    ends = [True]

    def end(lease_id: str) -> None:
        if ends.pop():
            other = Ledger(place, entropy=b"other")
            row = other.lease(lease_id)
            assert row is not None
            row = other.take_over(row, "somebody", now(), "owner missing")
            other.request_release(row, now(), "owner missing")
            other.close()
        ends.append(False)

    put_reach, set_up = LeaseFiles.put_reach, AsyncLease.set_up

    def put_late(self: LeaseFiles, lease_id: str, kept: KeptReach) -> None:
        if ends[0]:
            end(lease_id)
            self.remove(lease_id)
        put_reach(self, lease_id, kept)

    async def set_up_late(self: AsyncLease) -> None:
        end(self.id)
        await set_up(self)

    if closed:
        monkeypatch.setattr(LeaseFiles, "put_reach", put_late)
    else:
        monkeypatch.setattr(AsyncLease, "set_up", set_up_late)
    async with (
        broker_on(cloud, ledger=place) as broker,
        broker.pool(A_4090, keep_warm=fixed(600)) as pool,
    ):
        result = await pool.run("x")

    assert result.ok
    assert len(cloud.creates) == 2
    cloud.assert_nothing_running()


async def test_who_waits_for_a_machine_that_is_asked_back_as_it_boots_gets_another_one(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """As where it is asked back after its boot: that is no reason to refuse a job."""
    cloud.boot_takes(60)
    results: list[Result] = []
    booting: list[str] = []

    async with (
        broker_on(cloud, ledger=place) as one,
        broker_on(cloud, ledger=place, seed=2) as two,
        one.pool(A_4090, keep_warm=fixed(600)) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(into, results, pool)
        await anyio.sleep(20)
        booting.extend([lease.id for lease in await two.leases()])
        await two.release(booting[0])

    assert [result.ok for result in results] == [True]
    assert results[0].lease_id not in booting
    assert len(cloud.creates) == 2
    cloud.assert_nothing_running()
