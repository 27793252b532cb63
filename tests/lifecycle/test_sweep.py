"""Sweeps: what is found, and what is done about it."""

from __future__ import annotations

import math
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    BrokerError,
    Event,
    EventKind,
    InvalidValue,
    LeaseReleased,
    LeaseState,
    Mark,
    Money,
    Plugin,
    Requirements,
    Result,
)
from gpubroker.lifecycle.reaping import reap
from gpubroker.policy.sweeping import Finding, Scene, Verdict
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


def change_owner(ledger: Path, **columns: Any) -> None:
    """Make the ledger say something else of every owner."""
    with sqlite3.connect(ledger) as sql:
        for name, value in columns.items():
            sql.execute(f"UPDATE owners SET {name} = ?", [value])
    sql.close()


async def test_a_create_that_is_answered_after_its_intent_was_closed_is_released_and_booked(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Who sent it was taken for dead, stands still no more, and alone knows of the machine."""
    ledger = tmp_path / "ledger.db"
    cloud.create_takes(100)
    cloud.visibility_lag(1000)

    async with broker_on(cloud, ledger=ledger, sweep=False) as late:
        async with anyio.create_task_group() as tasks:

            async def rent() -> None:
                with pytest.raises(BrokerError):
                    async with late.lease(A_4090):
                        raise AssertionError("it was taken over")

            tasks.start_soon(rent)
            await anyio.sleep(1)
            change_owner(ledger, pid=2**22 + 1)
            async with broker_on(cloud, ledger=ledger, seed=2, sweep=False) as heir:
                await anyio.sleep(70)
                for _ in range(3):
                    await heir.sweep()
                    await anyio.sleep(10)
                tasks.cancel_scope.cancel()
        await anyio.sleep(400)
        rows = await late.leases(open_only=False)
        problems = await late.verify()

    cloud.assert_nothing_running()
    (create,) = cloud.creates
    (row,) = [row for row in rows if row.mark == create.order.mark]
    assert row.machine_id == create.machine_id
    assert row.spent >= cloud.billed > Money(0)
    assert problems == []


async def test_a_lease_that_was_closed_since_its_row_was_read_is_left_closed(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, events: list[Event]
) -> None:
    """A process that stood still in the middle of a sweep finds that others have done its work."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as owner:
        async with owner.lease(A_4090) as lease:
            pass
        (before,) = await owner.leases()
        await owner.wait_released(lease.id, timeout=300)
        (closed,) = await owner.leases(open_only=False)
        async with broker_on(cloud, ledger=ledger, seed=2, sweep=False) as late:
            _, _, reaper = late._opened()  # pyright: ignore[reportPrivateUsage]
            await reaper.release(before, Finding.OVERDUE)
            await anyio.sleep(100)
            (after,) = await late.leases(open_only=False)
            assert await late.verify() == []

    assert before.state is LeaseState.RELEASING
    assert (after.state, after.spent) == (closed.state, closed.spent)
    assert not any(event.kind is EventKind.ALARM for event in events)


async def test_who_learns_that_a_lease_was_taken_from_it_may_still_not_write_to_it(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """What became of the lease is known from then on; its epoch stays that of its former holder.

    A job over SSH takes a while to be left, and puts its end on record with whatever is known.
    """
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as stale:
        async with stale.lease(A_4090) as lease:
            change_owner(ledger, pid=2**22 + 1)
            async with broker_on(cloud, ledger=ledger, seed=2):
                await anyio.sleep(100)
            hold = lease._hold  # pyright: ignore[reportPrivateUsage]

            assert hold.row.release_reason == "owner dead"
            assert hold.row.epoch == 1


async def test_the_lease_of_a_dead_process_is_taken_over_and_released_at_once(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """The process of this host is certainly gone: one sweep is enough; it can change nothing more."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as dead:
        async with dead.lease(A_4090) as lease:
            change_owner(ledger, pid=2**22 + 1)
            async with broker_on(cloud, ledger=ledger, seed=2) as heir:
                await anyio.sleep(100)
                (row,) = await heir.leases(open_only=False)
                cloud.assert_nothing_running()
            with pytest.raises(BrokerError):
                await lease.run(["x"])
        problems = await dead.verify()

    assert (row.state, row.epoch) == (LeaseState.RELEASED, 2)
    assert problems == []


async def test_a_missing_heartbeat_is_doubted_once_before_it_is_believed(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, now: VirtualWallClock
) -> None:
    """An owner on another host that is silent may only be late: two sweeps must agree."""
    ledger = tmp_path / "ledger.db"
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as silent,
        silent.lease(A_4090),
    ):
        with sqlite3.connect(ledger) as sql:
            values = ("silent", "elsewhere", 1, "", now() - 1)
            sql.execute("INSERT INTO owners VALUES (?, ?, ?, ?, ?, NULL)", values)
            sql.execute("UPDATE leases SET owner = 'silent'")
        sql.close()
        async with broker_on(cloud, ledger=ledger, seed=2) as heir:
            await anyio.sleep(10)
            after_one = list(cloud.running)
            await anyio.sleep(200)
            after_more = list(cloud.running)
            rows = await heir.leases()

    assert [machine.id for machine in after_one]
    assert after_more == []
    assert rows == []


async def test_sweeps_in_quick_succession_are_one_look(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """An owner that is late is not given up by asking three times in a moment."""
    ledger = tmp_path / "ledger.db"
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as silent,
        silent.lease(A_4090),
    ):
        change_owner(ledger, host="elsewhere", expires_at=0)
        async with broker_on(cloud, ledger=ledger, seed=2, sweep=False) as heir:
            for _ in range(3):
                await heir.sweep()
            change_owner(ledger, expires_at=2**40)
            await anyio.sleep(100)
            running = list(cloud.running)

    assert len(running) == 1


async def test_the_lease_of_a_living_process_is_left_alone(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """No sweep touches what a living owner holds, however many there are."""
    ledger = tmp_path / "ledger.db"
    cloud.job_takes(2000)
    results: list[Result] = []
    async with broker_on(cloud, ledger=ledger) as holder:
        async with broker_on(cloud, ledger=ledger, seed=2) as other:
            async with anyio.create_task_group() as tasks:

                async def sweeps() -> None:
                    for _ in range(20):
                        await other.sweep()
                        await anyio.sleep(60)

                tasks.start_soon(sweeps)
                results.append(await holder.run(["x"], A_4090))

    assert [result.ok for result in results] == [True]


async def test_who_releases_what_a_sweep_found_is_not_taken_for_dead_meanwhile(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, now: VirtualWallClock
) -> None:
    """It gives signs of life though it holds nothing else, so that no other takes over from it."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as dead, dead.lease(A_4090):
        change_owner(ledger, pid=2**22 + 1)
        cloud.release_fails(until=now() + 300)
        async with broker_on(cloud, ledger=ledger, seed=2):
            await anyio.sleep(200)
            async with broker_on(cloud, ledger=ledger, seed=3) as other:
                await anyio.sleep(60)
                (row,) = await other.leases()

    assert row.epoch == 2


async def test_a_lease_past_its_deadline_ends_even_if_its_owner_lives(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, now: VirtualWallClock
) -> None:
    """An owner that lives but does not act does not keep a machine beyond its deadline."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as holder:
        async with holder.lease(A_4090):
            with sqlite3.connect(ledger) as sql:
                sql.execute("UPDATE leases SET deadline = ?", [now() - 1000])
            sql.close()
            async with broker_on(cloud, ledger=ledger, seed=2):
                await anyio.sleep(200)
            cloud.assert_nothing_running()


async def test_a_create_in_flight_when_the_broker_ended_is_found_by_its_mark(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """The intent alone is enough to find the machine of a create that nobody heard the end of."""
    ledger = tmp_path / "ledger.db"
    cloud.create_takes(50)
    async with broker_on(cloud, ledger=ledger, close_wait=0) as gone:
        with anyio.move_on_after(10):
            await gone.run(["x"], A_4090)
    async with broker_on(cloud, ledger=ledger, seed=2) as heir:
        (before,) = await heir.leases()
        await anyio.sleep(300)
        (after,) = await heir.leases(open_only=False)

    assert before.machine_id is None
    assert after.state is LeaseState.RELEASED
    assert after.spent > Money(0)
    cloud.assert_nothing_running()


async def test_a_create_that_takes_effect_hours_later_is_still_caught(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A create that was given up is watched for, and its late machine is released."""
    cloud.next_create_loses_reply(after=4 * 3600)

    async with broker_on(cloud) as broker:
        await broker.run(["x"], A_4090)
        await anyio.sleep(5 * 3600)
        cloud.assert_nothing_running()
        rows = await broker.leases()
        problems = await broker.verify()

    assert rows == []
    assert problems == []


@pytest.mark.deep
async def test_the_watch_for_a_late_create_ends_after_a_day(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """After a day without a trace the money is free again."""
    cloud.next_create_loses_reply(creates=False)

    async with broker_on(cloud) as broker:
        await broker.run(["x"], A_4090)
        await anyio.sleep(86_400 + 100)
        rows = await broker.leases(open_only=False)
        problems = await broker.verify()

    assert {row.state for row in rows} == {LeaseState.RELEASED}
    assert sum(row.reserved.micros for row in rows) == 0
    assert problems == []


async def test_a_machine_that_rises_after_its_release_is_released_again(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A machine with the mark of a closed lease is ours, and goes once more."""
    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        await broker.wait_released(result.lease_id, timeout=300)
        cloud.foreign_machine("risen", mark=cloud.creates[0].order.mark)
        (swept,) = await broker.sweep()
        await anyio.sleep(100)
        problems = await broker.verify()

    assert [verdict.finding for verdict in swept.verdicts] == [Finding.RISEN]
    assert not cloud.foreign
    assert problems == []


async def test_a_second_machine_of_one_create_is_destroyed_and_the_lease_left_alone(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Of several machines with one mark the lease keeps its own; the surplus goes."""
    async with broker_on(cloud) as broker, broker.lease(A_4090) as lease:
        cloud.foreign_machine("twin", mark=cloud.creates[0].order.mark)
        await broker.sweep()
        await anyio.sleep(10)
        twins = list(cloud.foreign)
        result = await lease.run(["x"])
        noted = [event.detail for event in await broker.events(lease.id) if event.kind == "surplus"]

    assert twins == []
    assert result.ok
    assert len(noted) == 1
    assert "was destroyed; its cost: " in noted[0]


async def test_a_pass_that_misses_many_at_once_acts_on_few(
    now: VirtualWallClock, broker_on: MakeBroker, events: list[Event]
) -> None:
    """When a list suddenly shows none of twenty machines, no pass gives up more than four."""
    cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.36")])
    async with broker_on(cloud, sweep=False, budget="100") as broker:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(broker.lease(A_4090))
            await anyio.sleep(100)
            cloud.inventory_is_empty(times=2)
            (first,) = await broker.sweep()
            await anyio.sleep(6)
            (second,) = await broker.sweep()

    assert len(first.verdicts) == len(second.verdicts) == 20
    assert (len(first.started), len(second.started)) == (0, 4)
    assert any(e.kind is EventKind.ALARM and "16 more of 20" in e.text for e in events)


async def test_our_mark_without_a_row_is_reported_and_released_only_when_adopted(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event], tmp_path: Path
) -> None:
    """A lost ledger's machine is alarmed about; `adopt` is what releases it."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger) as broker:
        cloud.job_takes(math.inf)
        with anyio.move_on_after(5):
            await broker.run(["x"], A_4090)
        await anyio.sleep(300)
        # The row is lost, the machine is not.
        with sqlite3.connect(ledger) as sql:
            sql.execute("DELETE FROM leases")
            sql.execute("DELETE FROM events")
        sql.close()
        cloud.foreign_machine("unrecorded", mark=cloud.creates[0].order.mark)
        await broker.sweep()
        await anyio.sleep(100)
        untouched = {machine.id for machine in cloud.foreign}
        row = await broker.adopt("scripted", "unrecorded")
        await broker.wait_released(row.id, timeout=300)
        with pytest.raises(InvalidValue, match="lists none that is to be adopted"):
            await broker.adopt("scripted", "nonsense")

    assert "unrecorded" in untouched
    assert "unrecorded" not in {machine.id for machine in cloud.foreign}
    assert any(e.kind is EventKind.ALARM and "not in this ledger" in e.text for e in events)


async def test_a_machine_that_vanishes_from_an_idle_lease_ends_the_lease(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Somebody destroyed it at the vendor's console: once a list lacks it, the next comes soon."""
    async with broker_on(cloud) as broker, broker.lease(A_4090) as lease:
        cloud.machine_vanishes(1)
        cloud.job_takes(0.5)
        await lease.run(["x"])
        await anyio.sleep(cloud.facts.visibility_horizon + 12)
        running = list(cloud.running)
        with pytest.raises(LeaseReleased, match="vanished"):
            await lease.run(["y"])

    assert running == []


async def test_an_incomplete_list_concludes_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """While the provider cannot list its machines, a sweep says so and judges nothing."""
    async with broker_on(cloud, sweep=False) as broker, broker.lease(A_4090):
        await anyio.sleep(100)
        cloud.inventory_fails(times=1)
        (swept,) = await broker.sweep()

    assert (swept.complete, swept.verdicts) == (False, ())


def test_marks_of_other_ledgers_do_not_verify() -> None:
    """A mark is ours only with our key."""
    mark = Mark.make(b"k" * 32, "aaaaaaaa", b"0123456789")

    assert mark.verifies(b"k" * 32)
    assert not mark.verifies(b"x" * 32)


async def test_machines_of_another_ledger_with_the_same_key_are_strangers(
    cloud: ScriptedCloud, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who shares a key but not a ledger shares no machines: no sweep does more than report them."""
    monkeypatch.setenv("GPUBROKER_MARK_KEY", "k" * 32)
    async with broker_on(cloud) as theirs, theirs.lease(A_4090):
        async with broker_on(cloud, seed=2, sweep=False) as ours:
            (swept,) = await ours.sweep()
            await anyio.sleep(100)
        running = list(cloud.running)

    assert [verdict.finding for verdict in swept.verdicts] == [Finding.FOREIGN]
    assert len(running) == 1


async def test_without_an_account_there_is_nothing_to_sweep(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A provider that is merely installed cannot fail a sweep; one that was rented from is asked."""
    stranger = Plugin("stranger", cloud.factory, "scripted")
    async with broker_on(plugins=[stranger], sweep=False) as broker:
        swept = await broker.sweep()

    assert swept == []
    assert cloud.calls["inventory"] == 0


async def test_a_lease_whose_plugin_is_gone_is_quarantined_and_alarmed(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event], tmp_path: Path
) -> None:
    """Nothing can end its machine without the plugin: that is said at once, and never forgotten."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger, sweep=False) as dead, dead.lease(A_4090) as lease:
        change_owner(ledger, pid=2**22 + 1)
        async with broker_on(ledger=ledger, seed=2, sweep=False, close_wait=1) as heir:
            (swept,) = await heir.sweep()
            await anyio.sleep(60)
            (row,) = await heir.leases()
        running = len(cloud.running)

    assert not swept.complete
    assert swept.problem == "it is not installed here"
    assert row.state is LeaseState.QUARANTINED
    assert running == 1
    alarms = [event.text for event in events if event.kind is EventKind.ALARM]
    assert f"{lease.id} cannot be looked after, and may bill: scripted: {swept.problem}" in alarms


async def test_sweeps_go_on_whatever_goes_wrong_in_one(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    events: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error that nobody has thought of costs one round, and is told; the next one acts."""
    ledger = tmp_path / "ledger.db"

    def fails(_: Scene) -> list[Verdict]:
        raise ZeroDivisionError

    async with broker_on(cloud, ledger=ledger, sweep=False) as dead, dead.lease(A_4090):
        change_owner(ledger, pid=2**22 + 1)
        with monkeypatch.context() as patched:
            patched.setattr(reap, "sweep", fails)
            heir = broker_on(cloud, ledger=ledger, seed=2)
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(heir)
                await anyio.sleep(65)
                left = len(cloud.running)
                patched.undo()
                await anyio.sleep(65)
                cloud.assert_nothing_running()

    assert left == 1
    assert any("a sweep failed: " in event.text for event in events)
