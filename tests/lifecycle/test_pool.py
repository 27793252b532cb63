"""A pool of machines: used again, given up in time, and never more of them than allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    AsyncLease,
    AsyncPool,
    BrokerError,
    Budget,
    BudgetExceeded,
    Event,
    EventKind,
    InvalidValue,
    Job,
    KeepWarm,
    LeaseState,
    Limits,
    Money,
    NoOfferFits,
    PoolFull,
    PoolTimeout,
    Requirements,
    Result,
    break_even,
    fixed,
    learnt,
)
from gpubroker.testing import ScriptedCloud, VirtualWallClock, cancel_at, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
SET_UP = Requirements(gpu="RTX 4090", setup="prepare")


@dataclass
class Outcome:
    """What became of one job in a pool."""

    result: Result | None = None
    error: BrokerError | None = None

    async def of(self, pool: AsyncPool) -> None:
        try:
            self.result = await pool.run(["x"])
        except BrokerError as error:
            self.error = error


async def together(pool: AsyncPool, number: int) -> list[Result]:
    """So many jobs at once."""
    outcomes = [Outcome() for _ in range(number)]
    async with anyio.create_task_group() as tasks:
        for outcome in outcomes:
            tasks.start_soon(outcome.of, pool)
    return [outcome.result for outcome in outcomes if outcome.result is not None]


async def runs_until(error: type[BrokerError], pool: AsyncPool) -> int:
    """How many jobs could be run before that error."""
    for done in range(100):
        try:
            await pool.run(["x"])
        except error:
            return done
    raise AssertionError("it goes on and on")


@dataclass
class Between:
    """Hours from one Unix time to another, once."""

    start: float
    end: float

    def warm_wanted(self, now: float, cold_start: float) -> bool:
        return self.start - cold_start <= now < self.end

    def next_change(self, now: float) -> float:
        return next((at for at in (self.start, self.end) if at > now), math.inf)


async def test_a_warm_machine_is_used_again_and_given_up_when_idle(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Two jobs in a row use one machine; after its idle limit it is gone."""
    cloud.boot_takes(30, times=1000)
    cloud.job_takes(5, times=1000)

    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(60)) as pool:
        first = await pool.run(["x"])
        await anyio.sleep(50)
        second = await pool.run(["y"])
        status = await pool.status()
        await anyio.sleep(61)
        gone = len(cloud.running)

        assert await broker.verify() == []
    assert first.ok
    assert second.ok
    assert first.lease_id == second.lease_id
    assert (status.warm, status.busy) in ((1, 0),)
    assert gone == 0
    assert len(cloud.creates) == 1


async def test_a_pool_that_closes_says_why_its_machines_go(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Warm ones too, at once: nobody of this process will use them."""
    async with broker_on(cloud) as broker:
        async with broker.pool(A_4090, keep_warm=fixed(600)) as pool:
            await pool.run(["x"])
        reasons = [event.text for event in events if event.kind is EventKind.RELEASING]
        running = list(cloud.running)

    assert reasons == ["the pool is closing"]
    assert running == []


@pytest.mark.parametrize(
    ("rule", "kept"), [(fixed(40), 40), (break_even(), 133), (learnt(), 133)], ids=str
)
async def test_an_idle_machine_is_kept_by_the_rule(
    cloud: ScriptedCloud, broker_on: MakeBroker, rule: KeepWarm, kept: float
) -> None:
    """For a fixed time; or for as long as its cold start took, set-up included."""
    cloud.boot_takes(120, times=9)
    cloud.setup_takes(10, times=9)

    async with broker_on(cloud) as broker, broker.pool(SET_UP, keep_warm=rule) as pool:
        result = await pool.run(["x"])
        status = await pool.status()
        (row,) = await broker.leases()
        (ended,) = [e.at for e in await broker.events(row.id) if e.kind == "job ended"]
        await anyio.sleep(kept + 30)
        left = len(cloud.running)

    assert result.ok
    assert status.idle_until[row.id] == pytest.approx(ended + kept, abs=4)
    assert left == 0


async def test_activity_can_be_asked_for(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """What somebody does with a machine besides jobs keeps it from being given up."""
    until = now() + 500

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090, keep_warm=fixed(60), activity=lambda lease: min(now(), until)) as pool,
    ):
        await pool.run(["x"])
        await anyio.sleep(450)
        during = len(cloud.running)
        await anyio.sleep(150)
        after = len(cloud.running)

    assert (during, after) == (1, 0)


async def test_as_many_machines_as_allowed_serve_a_queue(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Five jobs, two machines: none is rented beyond that, and every job gets its turn."""
    cloud.boot_takes(30, times=1000)
    cloud.job_takes(20, times=1000)

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090, max_machines=2, keep_warm=fixed(5)) as pool,
    ):
        results = await together(pool, 5)
        await anyio.sleep(30)
        left = len(cloud.running)

    assert all(result.ok for result in results)
    assert len({result.lease_id for result in results}) == 2
    assert len(cloud.creates) == 2
    assert left == 0


async def test_costs_of_jobs_add_up_to_what_the_machine_cost_until_the_last(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Each bears what passed since the one before; the first one boot and set-up."""
    cloud.boot_takes(60, times=1000)
    cloud.job_takes(10, times=1000)

    async with broker_on(cloud) as broker, broker.pool(A_4090, keep_warm=fixed(100)) as pool:
        first = await pool.run(["x"])
        await anyio.sleep(20)
        second = await pool.run(["y"])
        status = await pool.status()

    assert first.cost > second.cost > Money("0.0029")
    assert first.cost + second.cost <= status.cost_today + Money("0.0001")
    assert first.timings.acquire >= 60
    assert second.timings.acquire < 1


async def test_whom_the_queue_has_no_room_for_is_told_at_once(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """And who waits for too long is told then; the job that runs is not disturbed."""
    cloud.job_takes(1000, times=1000)
    running, waiting = Outcome(), Outcome()

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090, queue=1, wait=100) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(running.of, pool)
        await anyio.sleep(60)
        tasks.start_soon(waiting.of, pool)
        await anyio.sleep(1)
        with pytest.raises(PoolFull):
            await pool.run(["z"])

    assert isinstance(waiting.error, PoolTimeout)
    assert running.result is not None
    assert running.result.ok


async def test_a_machine_lives_no_longer_than_it_may(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Before its end it takes no more work, and another one does."""
    cloud.job_takes(100, times=1000)

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090, keep_warm=fixed(10_000), lifetime=1800) as pool,
    ):
        leases = {(await pool.run(["x"])).lease_id for _ in range(20)}
        rows = [row for row in await broker.leases(open_only=False) if row.ended_at]

    assert len(leases) == 2
    assert all(row.ended_at is not None and row.ended_at - row.created_at < 1800 for row in rows)
    assert all(create.order.deadline - create.at <= 1800 for create in cloud.creates)


async def test_money_is_reserved_step_by_step(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """A machine that may live for 12 hours holds half an hour's money, and is given up for want of it."""
    cloud.job_takes(600, times=1000)
    limits = Limits(day=Money("0.60"))

    async with broker_on(cloud) as broker:
        async with broker.pool(A_4090, keep_warm=fixed(3600), budget=limits) as pool:
            first = await pool.run(["x"])
            (row,) = await broker.leases()
            runs = await runs_until(BudgetExceeded, pool)
        spent = (await broker.costs("tag")).spent

        assert await broker.verify() == []
    assert first.ok
    assert row.reserved < Money("0.25")
    assert runs > 3
    assert spent <= Money("0.60")


async def test_a_pool_scales_to_zero_outside_of_its_hours(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """Within them so many machines are warm as are to be, with nobody asking."""
    hours = Between(now() + 1000, now() + 5000)
    counts: list[int] = []

    async with (
        broker_on(cloud) as broker,
        broker.pool(A_4090, keep_warm=fixed(1), min_warm=1, schedule=hours) as pool,
    ):
        for _ in range(4):
            await anyio.sleep(500 if not counts else 2000)
            counts.append(len(cloud.running))
        outside = await pool.run(["x"])
        await anyio.sleep(30)
        counts.append(len(cloud.running))

    assert counts == [0, 1, 1, 0, 0]
    assert outside.ok


async def test_a_lost_machine_is_replaced_and_its_job_started_again(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """As often as the job says."""
    cloud.job_takes(100, times=1000)
    cloud.machine_vanishes(after=50, times=1)

    async with broker_on(cloud) as broker, broker.pool(A_4090) as pool:
        result = await pool.run(Job(["x"], retries=1))
        assert await broker.verify() == []

    assert result.ok
    assert len(cloud.creates) == 2
    cloud.assert_nothing_running()


async def test_a_machine_that_is_not_well_is_replaced(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """It is asked while it is idle; one that is to be kept warm is rented anew."""
    answers = iter([True, False])

    async def health(lease: AsyncLease) -> bool:
        return next(answers, True)

    async with broker_on(cloud) as broker, broker.pool(A_4090, min_warm=1, health=health) as pool:
        await anyio.sleep(400)
        status = await pool.status()

    assert status.warm == 1
    assert len(cloud.creates) == 2


async def test_machines_that_are_never_well_are_not_rented_over_and_over(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A health check that always says no costs less and less; who waits is served all the same."""

    async def health(lease: AsyncLease) -> bool:
        return False

    async with (
        broker_on(cloud, budget="50") as broker,
        broker.pool(A_4090, min_warm=1, max_machines=2, health=health) as pool,
    ):
        await anyio.sleep(4 * 3600)
        rented = len(cloud.creates)
        result = await pool.run(["x"])

    assert rented < 40
    assert result.ok


async def test_a_failure_to_rent_reaches_who_waits(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """With the decision record, at once and not when the wait is over."""
    async with broker_on(cloud) as broker, broker.pool(Requirements(gpu="H100")) as pool:
        with pytest.raises(NoOfferFits):
            await pool.run(["x"])


async def test_a_borrowed_machine_counts_as_busy_and_costs(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Its use is on record as a job is; when it is given back it is idle."""
    cloud.job_takes(5, times=1000)

    async with broker_on(cloud) as broker, broker.pool(A_4090, activity="use") as pool:
        async with pool.machine() as machine:
            await machine.run(["x"])
            await anyio.sleep(500)
            (row,) = await broker.leases()
            busy = await pool.status()
            cost = machine.cost
        await anyio.sleep(1)
        idle = await pool.status()

    assert row.state is LeaseState.BUSY
    assert (busy.busy, busy.warm) == (1, 0)
    assert (idle.busy, idle.warm) == (0, 1)
    assert cost > Money("0.04")


async def test_several_jobs_share_a_machine(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """It is idle when the last one has ended."""
    cloud.job_takes(100, times=1000)

    async with broker_on(cloud) as broker, broker.pool(A_4090, jobs_per_machine=3) as pool:
        began = anyio.current_time()
        results = await together(pool, 3)
        took = anyio.current_time() - began
        assert await broker.verify() == []

    assert len(cloud.creates) == 1
    assert len({result.job_id for result in results}) == 3
    assert took < 200


@pytest.mark.parametrize("borrows", [False, pytest.param(True, marks=pytest.mark.deep)])
async def test_cancelling_at_every_await_leaves_nothing_behind(
    now: VirtualWallClock, broker_on: MakeBroker, tmp_path: Path, borrows: bool
) -> None:
    """Wherever who waits for, uses or gives back a machine is cancelled, all of it is given up."""
    point, reached = 0, True
    while reached:
        cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36", id="a")])
        cloud.create_takes(2, times=9)
        cloud.boot_takes(7, times=9)
        cloud.setup_takes(3, times=9)
        cloud.job_takes(4, times=9)
        cloud.release_takes(5, times=9)
        broker = broker_on(cloud, ledger=tmp_path / f"{point}.db", close_wait=7200)

        async def scenario(broker: AsyncBroker = broker) -> None:
            async with broker, broker.pool(SET_UP, keep_warm=fixed(20)) as pool:
                if borrows:
                    async with pool.machine() as machine:
                        await machine.run(["x"])
                else:
                    await pool.run(["x"])
                await anyio.sleep(3)
                await pool.run(["y"])

        reached = await cancel_at(point, scenario)

        cloud.assert_nothing_running()
        cloud.assert_contract_kept()
        async with broker_on(cloud, ledger=tmp_path / f"{point}.db", seed=2) as later:
            rows = await later.leases()
            assert await later.verify() == []
        assert [row for row in rows if row.state is not LeaseState.LATE_WATCH] == []
        point += 1
    assert point > 8


async def test_a_job_cancelled_in_the_queue_leaves_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Nobody waits any more; the next in the queue is served as if it had never been there."""
    cloud.job_takes(100, times=9)
    after, queued = Outcome(), -1

    async with broker_on(cloud) as broker, broker.pool(A_4090) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Outcome().of, pool)
            await anyio.sleep(20)
            with anyio.move_on_after(10):
                await pool.run(["never"])
            queued = (await pool.status()).queued
            tasks.start_soon(after.of, pool)

    assert queued == 0
    assert after.result is not None
    assert len(cloud.runs) == 2


async def test_a_machine_whose_job_was_cancelled_is_used_no_more(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Whether the job has ended is not known, and the next one must not meet it."""
    cloud.job_takes(1000, times=1)

    async with broker_on(cloud) as broker, broker.pool(A_4090) as pool:
        with anyio.move_on_after(100):
            await pool.run(["x"])
        result = await pool.run(["y"])

    assert result.ok
    assert len(cloud.creates) == 2
    cloud.assert_nothing_running()


async def test_what_a_short_pool_has_spent_of_its_own_limit_is_told(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Its limits are forgotten with it, so the last look is before that."""
    cloud.job_takes(5)
    limits = Limits(day=Money("0.60"))

    async with broker_on(cloud, budget=Budget(day=Money(5), alert_at=(0.0001,))) as broker:
        async with broker.pool(A_4090, name="short", keep_warm=fixed(3600), budget=limits) as pool:
            await pool.run(["x"])

    told = [event.alert.limit for event in events if event.alert is not None]
    assert "budget of this day for tag pool:short" in told


async def test_two_pools_of_one_name_in_one_broker_are_refused(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """And so is what makes no sense; nothing was rented."""
    async with broker_on(cloud) as broker, broker.pool(A_4090):
        wrong: dict[str, Any]
        for wrong in (
            {},
            {"name": " "},
            {"wait": 0},
            {"activity": "all"},
            {"min_warm": 2},
            {"name": "other", "keep_warm": 300},
            {"name": "other", "schedule": "mon-fri 09:00-18:00"},
            {"name": "other", "service": "python3 server.py"},
        ):
            with pytest.raises(InvalidValue):
                async with broker.pool(A_4090, **wrong):
                    pass

    assert not cloud.creates
