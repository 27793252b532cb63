"""Owners that were taken for dead, and were not: they find out, and leave everything alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import pytest

from gpubroker import Job, Requirements, StaleOwner
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


def take_over(ledger: Path) -> None:
    """As another process does that adopts the only lease."""
    with sqlite3.connect(ledger) as sql:
        sql.execute("UPDATE leases SET epoch = epoch + 1, owner = 'another'")
    sql.close()


def on_record(ledger: Path) -> tuple[str, float | None, str, int]:
    """The lease's state and release request, its job's state, and how many events there are."""
    with sqlite3.connect(ledger) as sql:
        found: tuple[str, float | None, str, int] = sql.execute(
            "SELECT l.state, l.release_requested_at, j.state, (SELECT COUNT(*) FROM events)"
            " FROM leases l JOIN jobs j ON j.lease_id = l.id"
        ).fetchone()
    sql.close()
    return found


async def test_it_changes_nothing_of_a_lease_whose_job_was_adopted(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Neither when it notices, nor when its caller leaves, nor when its broker is closed."""
    ledger = tmp_path / "ledger.db"
    cloud.job_takes(1000)
    before: list[tuple[str, float | None, str, int]] = []

    async def another() -> None:
        await anyio.sleep(100)
        take_over(ledger)
        before.append(on_record(ledger))

    async with broker_on(cloud, ledger=ledger, sweep=False) as stale:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(another)
            with pytest.raises(StaleOwner):
                async with stale.lease(A_4090, on_owner_death="adopt") as lease:
                    await lease.run(["x"])
        (row,) = await stale.leases()
        with pytest.raises(StaleOwner):
            await stale.release(row.id)

    assert before == [on_record(ledger)]
    assert before[0][:3] == ("busy", None, "running")
    assert not cloud.destroys
    assert len(cloud.running) == 1


async def test_it_does_not_put_its_outputs_over_those_that_were_delivered(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Its job has ended before it could notice; whoever adopted it has the result."""
    ledger = tmp_path / "ledger.db"
    cloud.job_writes({"out.txt": b"whole"})
    cloud.job_takes(5)

    job = Job("x", outputs="out.txt", output_dir=tmp_path / "results")

    async def another() -> None:
        await anyio.sleep(1)
        take_over(ledger)

    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as stale,
        stale.lease(A_4090, on_owner_death="adopt") as lease,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(another)
        with pytest.raises(StaleOwner):
            await lease.run(job)

    assert list((tmp_path / "results").glob("*")) == []
    assert not cloud.destroys
