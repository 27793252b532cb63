"""Giving machines up, against all resistance."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    ErrorKind,
    Event,
    EventKind,
    LeaseState,
    Money,
    Policy,
    ProviderFacts,
    ReleaseState,
    Requirements,
)
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_run_returns_at_the_acknowledgement_and_the_supervisor_proves(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """The result comes once the destroy is acknowledged; proof takes two readings, 5 s apart."""
    cloud.job_takes(1000)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        acknowledged = now()
        state = await broker.wait_released(result.lease_id)

    assert result.release is ReleaseState.ACKNOWLEDGED
    assert state is ReleaseState.PROVEN
    assert 5 <= now() - acknowledged < 15


async def test_young_machines_are_not_proven_gone_before_they_had_to_be_visible(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A machine missing from a list made before the visibility horizon proves nothing."""
    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        state = await broker.wait_released(result.lease_id, timeout=600)

    assert state is ReleaseState.PROVEN
    assert now() - cloud.creates[0].at >= cloud.facts.visibility_horizon


async def test_a_failing_destroy_is_repeated_until_it_works(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """There is no number of failures after which a release is given up."""
    cloud.release_fails(times=30)

    async with broker_on(cloud, release_wait=1, close_wait=86_400) as broker:
        result = await broker.run(["x"], A_4090)
        state = await broker.wait_released(result.lease_id, timeout=86_400)

    assert result.release is ReleaseState.REQUESTED
    assert state is ReleaseState.PROVEN
    assert len(cloud.destroys) >= 31
    cloud.assert_nothing_running()


async def test_hours_of_failing_destroys_acknowledge_nothing(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """However long it fails: a lease is acknowledged when the provider says so, and not before."""
    works_again = now() + 7200
    cloud.release_fails(until=works_again)

    async with broker_on(cloud, release_wait=1, close_wait=86_400) as broker:
        result = await broker.run(["x"], A_4090)
        await anyio.sleep(3600)
        (row,) = await broker.leases()
        await broker.wait_released(result.lease_id, timeout=86_400)
        acknowledged = [e.at for e in await broker.events(result.lease_id) if "ackn" in e.kind]

    assert (row.state, row.acknowledged_at) == (LeaseState.QUARANTINED, None)
    assert min(acknowledged) >= works_again
    cloud.assert_nothing_running()


async def test_a_lease_whose_provider_is_not_there_is_an_alarm_and_stays_open(
    cloud: ScriptedCloud,
    now: VirtualWallClock,
    broker_on: MakeBroker,
    events: list[Event],
    tmp_path: Path,
) -> None:
    """Without its plugin nothing can be destroyed, and so nothing counts as destroyed."""
    ledger = tmp_path / "ledger.db"
    cloud.release_hangs(until=math.inf)
    async with broker_on(cloud, ledger=ledger, release_wait=1, close_wait=1) as broker:
        result = await broker.run(["x"], A_4090)

    other = ScriptedCloud("other", now=now)
    async with broker_on(other, ledger=ledger, seed=2, close_wait=1) as without:
        await without.release(result.lease_id)
        await anyio.sleep(600)
        (row,) = await without.leases()

    assert (row.state, row.acknowledged_at) == (LeaseState.QUARANTINED, None)
    assert any(e.kind is EventKind.ALARM and "is not available" in e.text for e in events)


async def test_a_destroy_that_does_nothing_is_noticed_and_repeated(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """An acknowledged destroy whose machine stays listed is an alarm, and is sent again."""
    cloud.release_does_nothing(times=1)

    async with broker_on(cloud, close_wait=3600) as broker:
        await broker.run(["x"], A_4090)

    cloud.assert_nothing_running()
    assert any(e.kind is EventKind.ALARM and "still listed" in e.text for e in events)


async def test_a_destroy_that_did_nothing_does_not_end_the_bill(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What a machine costs after a false acknowledgement is settled too."""
    cloud.release_does_nothing(times=5)

    async with broker_on(cloud, close_wait=7200) as broker:
        result = await broker.run(["x"], A_4090)
        await broker.wait_released(result.lease_id, timeout=7200)
        (row,) = await broker.leases(open_only=False)

    assert row.spent == Money.from_micros(cloud.billed.micros) > Money("0.05")


@pytest.mark.deep
async def test_closing_does_not_wait_for_ever_for_the_ledger(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock, tmp_path: Path
) -> None:
    """A ledger that another process holds does not keep a broker from closing."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, close_wait=1, release_wait=1) as broker:
        await broker.run(["x"], A_4090)
        other = sqlite3.connect(ledger, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        closing = now()
    other.close()

    assert now() - closing < 60


async def test_a_revoked_key_quarantines_and_alarms_and_ends_well(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Machines that cannot be released are named at once, tried on, and released in the end."""
    cloud.job_takes(100)
    cloud.revoke_key(at=now() + 50, until=now() + 7200)

    async with broker_on(cloud, release_wait=10, close_wait=86_400) as broker:
        result = await broker.run(["x"], A_4090)
        (row,) = await broker.leases()
        state = await broker.wait_released(result.lease_id, timeout=86_400)
        problems = await broker.verify()
        (settled,) = await broker.leases(open_only=False)

    assert row.state is LeaseState.QUARANTINED
    assert any(e.kind is EventKind.ALARM and "cannot be released" in e.text for e in events)
    assert state is ReleaseState.PROVEN
    assert problems == []
    assert settled.spent == Money.from_micros(cloud.billed.micros) > Money("0.70")


async def test_a_failing_inventory_proves_nothing(
    now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """While the list cannot be had, nothing counts as up, and nothing as gone."""
    facts = ProviderFacts(paid=True, boot_timeout=10_000)
    patient = ScriptedCloud(now=now, facts=facts, offers=[offer("RTX 4090", "0.36")])
    patient.inventory_fails(until=now() + 3000)

    async with broker_on(patient, close_wait=86_400) as broker:
        result = await broker.run(
            ["x"], A_4090, lifetime=20_000, policy=Policy(acquire_timeout=10_000)
        )
        state = await broker.wait_released(result.lease_id, timeout=86_400)

    assert state is ReleaseState.PROVEN
    assert now() >= 1_800_003_000


async def test_one_empty_list_is_not_proof(
    cloud: ScriptedCloud, broker_on: MakeBroker, now: VirtualWallClock
) -> None:
    """A list that is empty once, while the destroy does nothing, does not close the lease."""
    cloud.job_takes(500)

    async with broker_on(cloud, close_wait=3600) as broker:
        async with broker.lease(A_4090) as lease:
            await lease.run(["x"])
            cloud.release_does_nothing(times=1)
            cloud.inventory_is_empty(times=1)
        state = await broker.wait_released(lease.id, timeout=3600)

    assert state is ReleaseState.PROVEN
    cloud.assert_nothing_running()


async def test_closing_gives_up_everything_and_says_what_is_left(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """A broker that cannot prove a release within its time closes, names it, and keeps the row."""
    cloud.release_hangs(until=math.inf)

    async with broker_on(cloud, release_wait=5, close_wait=30) as broker:
        async with broker.lease(A_4090) as lease:
            pass

    assert any(e.kind is EventKind.ALARM and lease.id in e.text for e in events)


async def test_closing_gives_up_every_lease_that_is_held(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Leases that nobody leaves are given up with their broker, all of them."""

    async def hold(broker: AsyncBroker) -> None:
        async with broker.lease(A_4090):
            await anyio.sleep_forever()

    running: list[int] = []
    async with anyio.create_task_group() as holders:
        async with broker_on(cloud, close_wait=600) as broker:
            for _ in range(3):
                holders.start_soon(hold, broker)
            await anyio.sleep(100)
            running.append(len(cloud.running))
        running.append(len(cloud.running))
        holders.cancel_scope.cancel()

    assert running == [3, 0]


async def test_the_next_broker_goes_on_where_the_last_one_stopped(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker, tmp_path: object
) -> None:
    """What one broker could not prove, the next one's first sweep takes over and ends."""
    ledger = f"{tmp_path}/ledger.db"
    cloud.release_hangs(until=now() + 100)

    async with broker_on(cloud, ledger=ledger, release_wait=5, close_wait=30) as broker:
        async with broker.lease(A_4090):
            pass
    still = list(cloud.running)
    async with broker_on(cloud, ledger=ledger, seed=2) as broker:
        await anyio.sleep(200)
        rows = await broker.leases()
        problems = await broker.verify()

    assert len(still) == 1
    assert rows == []
    assert problems == []
    cloud.assert_nothing_running()


async def test_releasing_by_hand_ends_the_job_that_runs(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A release asked for while a job runs ends the job, and the result says so."""
    cloud.job_takes(math.inf)

    failures: list[str] = []
    async with broker_on(cloud) as broker, broker.lease(A_4090) as lease:
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                await anyio.sleep(30)
                await broker.release(lease.id, reason="changed my mind")

            tasks.start_soon(later)
            failures.append((await lease.run(["x"])).failure)

    assert failures == ["cancelled: changed my mind"]


async def test_the_account_may_hold_other_peoples_machines(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Machines without our mark are never touched, whatever happens to ours."""
    cloud.foreign_machine("theirs")
    cloud.foreign_machine("copied", mark="gb1-aaaaaaaa-aaaaaaaaaaaaaaaa-aaaaaaaa")

    async with broker_on(cloud) as broker:
        await broker.run(["x"], A_4090)
        swept = await broker.sweep()

    assert {machine.id for machine in cloud.foreign} == {"theirs", "copied"}
    assert "theirs" not in {destroy.machine_id for destroy in cloud.destroys}
    assert len(swept[0].verdicts) == 2


async def test_auth_failures_never_read_as_gone(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """Inventories refused for the key's sake prove nothing about any machine."""
    cloud.job_takes(100)

    async with broker_on(cloud, close_wait=86_400) as broker:
        async with broker.lease(A_4090) as lease:
            await lease.run(["x"])
            cloud.inventory_fails(10, ErrorKind.AUTH)
            before = now()
        state = await broker.wait_released(lease.id, timeout=86_400)

    assert state is ReleaseState.PROVEN
    assert now() - before > 5


async def test_a_destroy_that_is_put_off_is_an_alarm_after_a_minute(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """A vendor that asks for five minutes of patience does not put the alarm off for so long."""
    cloud.release_fails(1, ErrorKind.RATE_LIMIT, retry_after=300)

    async with broker_on(cloud, close_wait=1000, release_wait=0) as broker:
        result = await broker.run(["x"], A_4090)
        await anyio.sleep(61)
        (row,) = await broker.leases()
        alarms = [event for event in events if event.kind is EventKind.ALARM]
        state = await broker.wait_released(result.lease_id, timeout=600)

    assert row.state is LeaseState.QUARANTINED
    assert len(alarms) == 1
    assert state is ReleaseState.PROVEN
