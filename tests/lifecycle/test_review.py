"""Defects that a review found, each with the scenario that showed it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import (
    AccountSettings,
    AsyncBroker,
    AttemptState,
    BrokerClosed,
    BrokerError,
    Emit,
    Event,
    EventKind,
    Job,
    JobIO,
    JobState,
    LeaseReleased,
    LeaseState,
    LedgerBusy,
    Machine,
    MachineLost,
    Money,
    Outcome,
    Plugin,
    ReleaseState,
    Requirements,
    Result,
    hookimpl,
)
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.store import Store
from gpubroker.model.leases import LeaseRow
from gpubroker.testing import ScriptedCloud, ScriptedPlugin, VirtualWallClock

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


def with_plugin(cloud: ScriptedCloud, kind: type[ScriptedPlugin]) -> list[Plugin]:
    """The cloud's plugin, with some of its hooks replaced."""

    def factory(settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
        plugin = cloud.factory(settings, emit)
        plugin.__class__ = kind
        return plugin

    return [Plugin("scripted", factory, "test", given=True)]


def hold_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, until undone, another process holds the ledger; no real time passes."""

    def busy(self: Store) -> AbstractContextManager[Any]:
        raise LedgerBusy("held by another process")

    monkeypatch.setattr(Store, "transaction", busy)


async def test_nothing_is_rented_once_closing_has_begun(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A request that is still quoting when its broker closes ends, without a create."""
    cloud.quote_takes(8)
    ended: list[BaseException] = []

    async def late(broker: AsyncBroker) -> None:
        try:
            await broker.run(["x"], A_4090)
        except BrokerError as error:
            ended.append(error)

    async with anyio.create_task_group() as tasks:
        async with broker_on(cloud) as broker:
            async with broker.lease(A_4090):
                cloud.quote_takes(8)
                tasks.start_soon(late, broker)
                await anyio.sleep(1)
        await anyio.sleep(100)
        cloud.assert_nothing_running()

    assert len(cloud.creates) == 1
    assert isinstance(ended[0], BrokerClosed)


async def test_a_mark_of_another_key_says_nothing(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    events: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the wrong mark key a lost create stays unknown, and alarms; it is not written off."""
    ledger = tmp_path / "ledger.db"
    monkeypatch.setenv("GPUBROKER_MARK_KEY", "k" * 40)
    cloud.create_takes(50)
    async with broker_on(cloud, ledger=ledger, close_wait=0) as gone:
        with anyio.move_on_after(10):
            await gone.run(["x"], A_4090)
    monkeypatch.setenv("GPUBROKER_MARK_KEY", "z" * 40)
    async with broker_on(cloud, ledger=ledger, seed=2) as other:
        await anyio.sleep(400)
        (row,) = await other.leases()
    monkeypatch.setenv("GPUBROKER_MARK_KEY", "k" * 40)
    async with broker_on(cloud, ledger=ledger, seed=3):
        await anyio.sleep(400)
        cloud.assert_nothing_running()

    assert row.state is LeaseState.UNKNOWN
    assert row.release_state is not ReleaseState.PROVEN
    for said in ("not of this key", "made with another mark key"):
        assert any(e.kind is EventKind.ALARM and said in e.text for e in events)


async def test_an_interrupted_release_request_is_still_carried_out(
    cloud: ScriptedCloud, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt inside the very commit of the request does not undo the request."""
    real = Ledger.request_release
    interrupts = [KeyboardInterrupt()]

    def interrupted(self: Ledger, lease: LeaseRow, at: float, reason: str) -> LeaseRow:
        if interrupts:
            raise interrupts.pop()
        return real(self, lease, at, reason)

    monkeypatch.setattr(Ledger, "request_release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        async with broker_on(cloud) as broker, broker.lease(A_4090):
            pass

    cloud.assert_nothing_running()


async def test_a_machine_is_destroyed_although_the_ledger_cannot_be_written(
    cloud: ScriptedCloud, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that others hold for an hour keeps no machine alive for an hour."""
    async with broker_on(cloud, release_wait=1, close_wait=7200) as broker:
        async with broker.lease(A_4090):
            hold_ledger(monkeypatch)
        await anyio.sleep(100)
        running = list(cloud.running)
        monkeypatch.undo()

    assert running == []


async def test_a_result_outlives_a_ledger_that_cannot_take_it(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    events: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finished job's result is returned although its end could not be recorded."""
    cloud.job_takes(5)
    cloud.job_writes({"a": b"1"})
    cloud.job_prints(b"go")
    async with broker_on(cloud, release_wait=1) as broker, broker.lease(A_4090) as lease:

        def lock(*_: object) -> None:
            hold_ledger(monkeypatch)

        job = Job(["x"], outputs=["a"], output_dir=tmp_path)
        result = await lease.run(job, on_output=lock)
        monkeypatch.undo()

    assert result.ok
    assert (tmp_path / "a").read_bytes() == b"1"
    assert any(e.kind is EventKind.ALARM and "could not be recorded" in e.text for e in events)


async def test_one_output_in_the_way_does_not_cost_the_others(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """When a folder here bars one output, all others are placed and that one is kept."""
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "mine").touch()
    cloud.job_writes({"b.png": b"b", "z": b"z", "zz.png": b"zz"})
    job = Job(["x"], outputs=["b.png", "z", "zz.png"], output_dir=tmp_path)

    async with broker_on(cloud) as broker:
        with pytest.raises(OSError, match="kept in"):
            await broker.run(job, A_4090)

    assert (tmp_path / "b.png").read_bytes() == b"b"
    assert (tmp_path / "zz.png").read_bytes() == b"zz"
    assert [path.read_bytes() for path in tmp_path.glob(".gpubroker-*/z")] == [b"z"]


async def test_a_failing_callback_does_not_fail_the_job(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """A fault of the caller's own callback is an alarm; the job goes on, on the same machine."""
    cloud.job_prints(b"out")

    def broken(*_: object) -> None:
        raise ValueError("my own fault")

    async with broker_on(cloud) as broker:
        result = await broker.run(Job(["x"], retries=1), A_4090, on_output=broken)

    assert result.ok
    assert len(cloud.creates) == 1
    assert any(e.kind is EventKind.ALARM and "my own fault" in e.text for e in events)


async def test_a_full_disk_here_is_not_the_machines_fault(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for an output is an OSError, and no reason to rent another machine."""
    cloud.job_writes({"a": b"1"})
    job = Job(["x"], outputs=["a"], output_dir=tmp_path, retries=1)

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    async with broker_on(cloud) as broker:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            await broker.run(job, A_4090)
        monkeypatch.undo()

    assert len(cloud.creates) == 1


async def test_releasing_a_booting_lease_rents_no_other_machine(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Giving up a machine that boots ends the request, instead of starting another one."""
    cloud.boot_takes(300, progress_every=10)

    async with broker_on(cloud) as broker, anyio.create_task_group() as tasks:

        async def later() -> None:
            await anyio.sleep(100)
            (row,) = await broker.leases()
            await broker.release(row.id, reason="changed my mind")

        tasks.start_soon(later)
        with pytest.raises(LeaseReleased, match="changed my mind"):
            await broker.run(["x"], A_4090)

    assert len(cloud.creates) == 1


async def test_releasing_a_lease_whose_create_is_unresolved_is_clean(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """Nobody fights over who finds out what became of a lost create."""
    cloud.next_create_loses_reply()
    cloud.visibility_lag(30)

    async with broker_on(cloud) as broker, anyio.create_task_group() as tasks:

        async def later() -> None:
            await anyio.sleep(10)
            (row,) = await broker.leases()
            await broker.release(row.id)

        tasks.start_soon(later)
        with pytest.raises(LeaseReleased):
            await broker.run(["x"], A_4090)

    cloud.assert_nothing_running()
    assert not [e for e in events if e.kind is EventKind.ALARM]


async def test_outputs_that_a_plugin_forgot_are_missing(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What did not come back is missing, whatever the plugin says."""

    class Forgetful(ScriptedPlugin):
        @hookimpl
        async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
            del machine, job
            if io.purpose == "probe":
                await io.output("stdout", b"NVIDIA GeForce RTX 4090, 24564\n")
            return Outcome(state=JobState.EXITED, exit_code=0)

    async with broker_on(cloud, plugins=with_plugin(cloud, Forgetful)) as broker:
        result = await broker.run(Job(["x"], outputs=["a", "*.png"]), A_4090)

    assert result.missing == ("a", "*.png")
    assert not result.ok


async def test_a_machine_that_vanishes_under_a_job_is_lost_and_retried(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A sweep that finds the machine gone ends the job as lost, so that it is started elsewhere."""

    class Deaf(ScriptedPlugin):
        runs: Sequence[str] = ()

        @hookimpl
        async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
            if io.purpose == "job" and machine.id == "scripted-1":
                await anyio.sleep(100_000)
            return await super().run(machine, job, io)

    results: list[Result] = []
    plugin = cloud.factory(AccountSettings("scripted"), lambda kind, text: None)
    async with broker_on(cloud, plugins=with_plugin(cloud, Deaf)) as broker:
        async with anyio.create_task_group() as tasks:

            async def console() -> None:
                await anyio.sleep(100)
                await plugin.release(Machine(id="scripted-1"))

            tasks.start_soon(console)
            results.append(await broker.run(Job(["x"], retries=1), A_4090, lifetime=3000))

    assert [result.ok for result in results] == [True]
    assert len(cloud.creates) == 2


async def test_a_stranger_does_not_judge_the_machine_of_a_living_owner(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Two listings that miss a machine are no reason for another broker to end its job."""
    ledger = tmp_path / "ledger.db"
    cloud.job_takes(500)
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as holder,
        broker_on(cloud, ledger=ledger, seed=2, sweep=False) as other,
        anyio.create_task_group() as tasks,
    ):

        async def sweeps() -> None:
            await anyio.sleep(100)
            cloud.inventory_is_empty(times=2)
            await other.sweep()
            await anyio.sleep(6)
            await other.sweep()

        tasks.start_soon(sweeps)
        result = await holder.run(["x"], A_4090)
        assert result.ok


async def test_an_impossible_creation_time_is_not_believed(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A vendor that tells milliseconds for seconds changes neither the cost nor the proof."""

    class Milliseconds(ScriptedPlugin):
        @hookimpl
        async def inventory(self) -> Sequence[Machine]:
            from dataclasses import replace

            machines = await super().inventory()
            return [replace(m, created_at=(m.created_at or 0) * 1000) for m in machines]

    cloud.next_create_loses_reply()
    cloud.job_takes(400)
    async with broker_on(cloud, plugins=with_plugin(cloud, Milliseconds)) as broker:
        result = await broker.run(["x"], A_4090)
        state = await broker.wait_released(result.lease_id, timeout=600)
        (row,) = await broker.leases(open_only=False)

    assert state is ReleaseState.PROVEN
    assert row.spent >= Money.from_micros(cloud.billed.micros) > Money("0.03")


@pytest.mark.deep
async def test_what_cannot_be_released_goes_on_counting_against_budgets(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """The reservation of a machine that bills on for a day grows with what it costs."""
    cloud.job_takes(10)
    cloud.revoke_key(at=now() + 5, until=now() + 2 * 86_400)

    async with broker_on(cloud, release_wait=1, close_wait=1) as broker:
        await broker.run(["x"], A_4090, lifetime=100)
        await anyio.sleep(86_400)
        (row,) = await broker.leases()
        billed = cloud.billed

    assert row.state is LeaseState.QUARANTINED
    assert row.reserved >= billed > Money("8")


async def test_a_create_is_billed_from_when_it_was_sent(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The vendor bills while it takes its time to answer, and so do we count."""
    cloud.create_takes(100)
    cloud.job_takes(100)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        await broker.wait_released(result.lease_id, timeout=600)
        (row,) = await broker.leases(open_only=False)

    assert row.spent == Money.from_micros(cloud.billed.micros)


async def test_a_lease_taken_over_and_closed_is_noticed_by_its_holder(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """However quickly another process releases it, the holder learns of it at the next heartbeat."""
    ledger = tmp_path / "ledger.db"
    async with broker_on(cloud, ledger=ledger) as holder, holder.lease(A_4090) as lease:
        await anyio.sleep(100)
        async with broker_on(cloud, ledger=ledger, seed=2) as other:
            await other.release(lease.id)
            await other.wait_released(lease.id)
        await anyio.sleep(60)
        with pytest.raises(LeaseReleased, match="another process"):
            await lease.run(["x"])


async def test_a_proof_that_cannot_be_had_is_an_alarm(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker, events: list[Event]
) -> None:
    """An acknowledged release that cannot be proven for a while is not kept quiet."""
    async with broker_on(cloud, close_wait=7200) as broker:
        async with broker.lease(A_4090):
            await anyio.sleep(100)
            cloud.inventory_fails(until=now() + 3600)

    assert any(e.kind is EventKind.ALARM and "cannot be found out" in e.text for e in events)


async def test_a_lost_machine_without_retries_says_lost(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What a sweep ends for want of its machine is an error that says so."""
    cloud.job_takes(10_000)
    cloud.machine_vanishes(50)

    async with broker_on(cloud) as broker:
        with pytest.raises(MachineLost) as caught:
            await broker.run(["x"], A_4090, lifetime=3000)
        kept = await broker.explain()

    result = caught.value.result
    assert result.record.winner is None
    assert [attempt.state for attempt in result.record.attempts] == [AttemptState.LOST]
    assert kept == result.record
