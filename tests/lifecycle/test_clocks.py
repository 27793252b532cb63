"""Clocks that jump, stand still or disagree: nothing leaks by them, and nobody is judged by them."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import anyio
import pytest

from gpubroker import Event, EventKind, JobState, LeaseReleased, ReleaseState, Requirements, Result
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
HOUR = 3600.0
YEAR = 365 * 24 * HOUR


async def test_a_deadline_that_passed_while_the_computer_slept_acts_on_waking(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock, events: list[Event]
) -> None:
    """Timers do not count the nine hours that the lid was closed; the wall clock does."""
    cloud.job_takes(math.inf)
    results: list[Result] = []
    woke = looked = 0.0

    async with broker_on(cloud) as broker, anyio.create_task_group() as tasks:

        async def work() -> None:
            results.append(await broker.run(["x"], A_4090, lifetime=HOUR))

        tasks.start_soon(work)
        await anyio.sleep(300)
        woke = anyio.current_time()
        listings = cloud.calls["inventory"]
        now.jump(9 * HOUR)
        await anyio.sleep(6)
        looked = cloud.calls["inventory"] - listings

    assert [result.state for result in results] == [JobState.CANCELLED]
    assert cloud.destroys[0].at <= woke - anyio.current_time() + now() + 5.5
    assert looked >= 1
    assert any("has jumped by +32400 s" in event.text for event in events)
    cloud.assert_nothing_running()


@pytest.mark.parametrize("seconds", [-YEAR, -HOUR, HOUR, YEAR])
async def test_a_clock_that_is_set_keeps_no_machine_beyond_its_lifetime(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock, seconds: float
) -> None:
    """Forward, it ends early; back, the loop's own clock ends it; and its end is proven either way."""
    cloud.job_takes(math.inf)
    started = anyio.current_time()

    async with broker_on(cloud, close_wait=600) as broker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: broker.run(["x"], A_4090, lifetime=HOUR))
            await anyio.sleep(300)
            now.jump(seconds)
        ended = anyio.current_time()
        (row,) = await broker.leases(open_only=False)
        state = await broker.wait_released(row.id, timeout=300)

    assert ended - started <= HOUR + 130
    assert state == "proven"
    cloud.assert_nothing_running()


@pytest.mark.parametrize("seconds", [-YEAR, -HOUR, 9 * HOUR])
async def test_no_living_owner_is_judged_dead_for_a_jump(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    now: VirtualWallClock,
    tmp_path: Path,
    seconds: float,
) -> None:
    """Of others on waking only old signs of life are there: they get the time to give new ones."""
    ledger = tmp_path / "ledger.db"

    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as holder,
        broker_on(cloud, ledger=ledger, seed=2),
        holder.lease(A_4090, lifetime=30 * HOUR, budget="50") as lease,
    ):
        elsewhere(ledger)
        await anyio.sleep(60)
        now.jump(seconds)
        await anyio.sleep(300)
        state = lease.release_state

    assert state is ReleaseState.HELD


async def test_hosts_may_disagree_about_the_time(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock, tmp_path: Path
) -> None:
    """An owner whose clock is ten minutes behind always looks late, but it moves: it lives."""
    ledger = tmp_path / "ledger.db"
    behind = VirtualWallClock()
    behind.jump(-600)

    async with (
        broker_on(cloud, ledger=ledger, sweep=False, now=behind) as holder,
        holder.lease(A_4090) as lease,
    ):
        elsewhere(ledger)
        async with broker_on(cloud, ledger=ledger, seed=2):
            await anyio.sleep(600)
        state = lease.release_state

    assert state is ReleaseState.HELD


@pytest.mark.parametrize("seconds", [-YEAR, 0.0])
async def test_a_dead_owner_of_another_host_is_found_whatever_its_last_word(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, seconds: float
) -> None:
    """A word that counts until next year was given by a wrong clock, and does not keep a machine."""
    ledger = tmp_path / "ledger.db"
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as silent,
        silent.lease(A_4090),
    ):
        elsewhere(ledger)
        with sqlite3.connect(ledger) as sql:
            sql.execute(
                "INSERT INTO owners SELECT 'gone', host, pid, started, expires_at - ?, NULL FROM owners",
                [seconds],
            )
            sql.execute("UPDATE leases SET owner = 'gone'")
        sql.close()
        async with broker_on(cloud, ledger=ledger, seed=2):
            await anyio.sleep(240)
            cloud.assert_nothing_running()


async def test_an_owner_that_is_there_but_busy_is_left_alone(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, now: VirtualWallClock
) -> None:
    """Its event loop was held for 150 s, so it said nothing; its process is a second sign."""
    ledger = tmp_path / "ledger.db"
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as busy,
        busy.lease(A_4090) as lease,
    ):
        with sqlite3.connect(ledger) as sql:
            row = sql.execute("SELECT host, pid, started FROM owners").fetchone()
            sql.execute("INSERT INTO owners VALUES ('busy', ?, ?, ?, ?, NULL)", [*row, now() - 100])
            sql.execute("UPDATE leases SET owner = 'busy'")
        sql.close()
        async with broker_on(cloud, ledger=ledger, seed=2, sweep=False) as other:
            for _ in range(3):
                await other.sweep()
                await anyio.sleep(0.1)
            kept = [row.id for row in await other.leases()]
            running = len(cloud.running)

    assert kept == [lease.id]
    assert running == 1


def elsewhere(ledger: Path) -> None:
    """Have every owner live on another host: only its word tells that it lives."""
    with sqlite3.connect(ledger) as sql:
        sql.execute("UPDATE owners SET host = 'elsewhere'")
    sql.close()


async def test_a_clock_that_is_set_makes_no_machine_old_enough_to_be_missed(
    broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """What a list does not show yet is not gone, though by the clock it is ten hours old."""
    cloud = ScriptedCloud(now=VirtualWallClock(), offers=[offer("RTX 4090", "0.36")])
    cloud.visibility_lag(40)
    cloud.boot_takes(300)
    cloud.release_does_nothing()
    left: list[bool] = []

    def look(event: Event) -> None:
        if event.kind is EventKind.PROVEN:
            left.append(bool(cloud.running))

    async with broker_on(cloud, on_event=look, close_wait=600) as broker:

        async def work() -> None:
            with pytest.raises(LeaseReleased):
                await broker.run(["x"], A_4090, lifetime=HOUR)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await anyio.sleep(5)
            now.jump(10 * HOUR)

    assert left == [False]
    assert len(cloud.destroys) > 1
