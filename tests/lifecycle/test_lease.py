"""A machine in hand: jobs on it, and all the ways in which they end."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AttemptState,
    ErrorKind,
    Event,
    EventKind,
    Job,
    JobFailed,
    JobState,
    LeaseReleased,
    LeaseState,
    MachineLost,
    Money,
    ReleaseState,
    Requirements,
    Scope,
    SetupFailed,
)
from gpubroker.testing import ScriptedCloud, VirtualWallClock

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_many_jobs_run_on_one_machine(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """A lease is rented once and serves job after job."""
    cloud.job_prints(b"one\n")
    cloud.job_prints(b"two\n")

    async with broker_on(cloud) as broker, broker.lease(A_4090) as lease:
        first = await lease.run(["a"])
        second = await lease.run(["b"])

    assert (first.text, second.text) == ("one\n", "two\n")
    assert len(cloud.creates) == 1
    cloud.assert_nothing_running()


async def test_output_arrives_live_and_apart(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """Each piece of output is handed on as it appears, by stream, and the end of it is kept."""
    cloud.job_prints(b"out", b"err")
    pieces: list[tuple[str, bytes]] = []

    def note(stream: str, data: bytes) -> None:
        pieces.append((stream, data))

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090, on_output=note)

    assert pieces == [("stdout", b"out"), ("stderr", b"err")]
    assert (result.stdout, result.stderr) == (b"out", b"err")


async def test_a_non_zero_exit_is_a_result_and_check_raises_for_it(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A failing job is no failure of the broker: the result says so, and `check` raises."""
    cloud.job_exits(3)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert (result.ok, result.exit_code, result.failure) == (False, 3, "exit code 3")
    with pytest.raises(JobFailed, match="exit code 3"):
        result.check()


async def test_outputs_come_back_and_missing_ones_are_named(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Wanted outputs are on the caller's disk; one that does not exist makes the result not ok."""
    cloud.job_writes({"a.png": b"picture", "log/x.txt": b"text"})
    job = Job(["x"], outputs=["*.png", "log/*.txt", "model.bin"], output_dir=tmp_path / "out")

    async with broker_on(cloud) as broker:
        result = await broker.run(job, A_4090)

    assert (tmp_path / "out" / "a.png").read_bytes() == b"picture"
    assert (tmp_path / "out" / "log" / "x.txt").read_bytes() == b"text"
    assert result.missing == ("model.bin",)
    assert result.failure == "missing output: model.bin"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "log"]


async def test_results_are_safe_before_the_machine_goes(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, events: list[Event]
) -> None:
    """The job's end, and so its files, come before the first word of a release."""
    cloud.job_writes({"a": b"1"})

    async with broker_on(cloud) as broker:
        await broker.run(Job(["x"], outputs=["a"], output_dir=tmp_path), A_4090)

    kinds = [event.kind for event in events]
    assert kinds.index(EventKind.JOB_ENDED) < kinds.index(EventKind.RELEASING)


async def test_a_job_that_times_out_is_ended_and_says_so(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A job's own time limit ends the job, not the broker."""
    cloud.job_takes(math.inf)

    async with broker_on(cloud) as broker:
        began = now()
        result = await broker.run(Job(["x"], timeout=50), A_4090)

    assert (result.state, result.exit_code) == (JobState.TIMED_OUT, None)
    assert now() - began < 200
    cloud.assert_nothing_running()


async def test_a_command_that_cannot_start_says_why(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A missing command is a result with the reason."""
    cloud.job_fails_to_start("no such command: x")

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)

    assert result.failure == "not started: no such command: x"


async def test_the_lifetime_ends_whatever_runs(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A machine never outlives its lifetime: the job on it is ended, and the result says why."""
    cloud.job_takes(math.inf)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090, lifetime=300)
        await broker.wait_released(result.lease_id, timeout=600)

    assert (result.state, result.message) == (JobState.CANCELLED, "its lifetime is over")
    assert cloud.destroys[0].at - cloud.creates[0].at == pytest.approx(300, abs=1)


async def test_an_idle_lease_is_released_at_its_deadline(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A lease that nobody uses ends at its deadline too, and using it afterwards is an error."""
    async with broker_on(cloud) as broker, broker.lease(A_4090, lifetime=120) as lease:
        await anyio.sleep(400)
        running = list(cloud.running)
        with pytest.raises(LeaseReleased, match="its lifetime is over"):
            await lease.run(["x"])

    assert not running


async def test_a_computer_that_slept_through_the_deadline_gives_the_machine_up_when_it_wakes(
    cloud: ScriptedCloud, now: VirtualWallClock, broker_on: MakeBroker
) -> None:
    """A deadline is wall time: the hours that the event loop did not see count too."""
    async with broker_on(cloud) as broker, broker.lease(A_4090, lifetime=3000) as lease:
        now.jump(9 * 3600)
        await anyio.sleep(60)
        running = list(cloud.running)
        with pytest.raises(LeaseReleased, match="its lifetime is over"):
            await lease.run(["x"])

    assert not running


async def test_a_lost_machine_is_an_error_that_keeps_what_there_is(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """When the machine goes away under the job, the error carries the output so far."""
    cloud.job_takes(100)
    cloud.job_prints(b"half\n")
    cloud.machine_vanishes(40)

    async with broker_on(cloud) as broker:
        with pytest.raises(MachineLost) as caught:
            await broker.run(["x"], A_4090)

    assert caught.value.result.state is JobState.LOST
    assert caught.value.result.stdout == b"half\n"
    assert caught.value.result.release is not ReleaseState.HELD


async def test_a_job_that_may_be_restarted_is_restarted_elsewhere(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """With retries a lost job is started again on another host, and the record says why."""
    cloud.job_takes(100, times=2)
    cloud.machine_vanishes(40)

    async with broker_on(cloud) as broker:
        result = await broker.run(Job(["x"], retries=1), A_4090)
        kept = await broker.explain(result.lease_id)

    assert result.ok
    assert [c.offer_id for c in cloud.creates] == ["cheap", "dear"]
    lost, won = result.record.attempts
    assert (lost.state, won.state) == (AttemptState.LOST, AttemptState.WON)
    assert "went away" in lost.reason
    assert lost.seconds >= 40
    assert lost.cost > won.cost
    assert result.record.winner == won
    assert kept == result.record


async def test_setup_runs_once_and_its_time_is_told(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """Set-up runs once per machine, before the first job."""
    cloud.setup_takes(60)
    wanted = Requirements(gpu="RTX 4090", setup="pip install torch")

    async with broker_on(cloud) as broker, broker.lease(wanted) as lease:
        first = await lease.run(["a"])
        await lease.run(["b"])

    assert first.timings.setup == pytest.approx(60, abs=1)
    assert [run.job.argv[-1] for run in cloud.runs] == ["pip install torch", "a", "b"]


async def test_a_failed_setup_is_said_and_the_machine_given_back(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A failing set-up script ends the request with its exit code, and leaves no machine."""
    cloud.setup_exits(7)
    wanted = Requirements(gpu="RTX 4090", setup="pip install nonsense")

    async with broker_on(cloud) as broker:
        with pytest.raises(SetupFailed, match=r"set-up failed \(exit code 7\)") as caught:
            await broker.run(["x"], wanted)

    assert caught.value.result.exit_code == 7
    assert len(cloud.runs) == 1
    cloud.assert_nothing_running()


async def test_secrets_reach_the_job_and_nothing_else(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """A secret is in the job's environment, and neither in the order nor in the ledger."""
    ledger = tmp_path / "ledger.db"
    job = Job(["x"], env={"A": "1"}, secrets={"TOKEN": "hunter2-hunter2"})

    async with broker_on(cloud, ledger=ledger) as broker:
        result = await broker.run(job, Requirements(gpu="RTX 4090", env={"B": "2"}))

    assert dict(cloud.runs[0].env) == {"A": "1", "B": "2", "TOKEN": "hunter2-hunter2"}
    assert dict(cloud.creates[0].order.env) == {"B": "2"}
    assert "hunter2" not in repr(job) + repr(result)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert b"hunter2" not in stored


async def test_a_hostile_file_name_writes_nothing_and_costs_the_machine_its_trust(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """A machine that sends a name outside the destination is lost, not obeyed."""
    cloud.machine_sends({"../../evil": b"x"})
    job = Job(["x"], outputs=["*"], output_dir=tmp_path / "a" / "b")

    async with broker_on(cloud) as broker:
        with pytest.raises(MachineLost, match="impossible name"):
            await broker.run(job, A_4090)

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_the_cost_is_what_the_cloud_billed(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """What the ledger settles is what the cloud's own books say, to the micro-dollar."""
    cloud.boot_takes(77)
    cloud.job_takes(333)
    cloud.release_takes(5)

    async with broker_on(cloud) as broker:
        result = await broker.run(["x"], A_4090)
        await broker.wait_released(result.lease_id, timeout=300)
        (row,) = await broker.leases(open_only=False)

    assert row.state is LeaseState.RELEASED
    assert row.spent == Money.from_micros(cloud.billed.micros)
    assert row.reserved == Money(0)


async def test_every_ledger_after_every_story_verifies(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """A mixed run of refusals, losses and successes leaves a ledger that keeps its own rules."""
    cloud.next_create_fails(ErrorKind.CAPACITY, Scope.OFFER)
    cloud.next_create_loses_reply()
    cloud.job_takes(100, times=3)
    cloud.machine_vanishes(40)

    async with broker_on(cloud) as broker:
        for _ in range(3):
            with suppress(MachineLost):
                await broker.run(["x"], Requirements(gpu=["RTX 4090", "A100"]))
        for row in await broker.leases():
            await broker.wait_released(row.id, timeout=600)
        assert await broker.verify() == []

    cloud.assert_nothing_running()
