"""What is kept for the heirs of leases: for this user alone, no secrets, and no longer than needed."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpubroker import Event, EventKind, HostIdentity, InvalidValue, Job, LeaseState, Requirements
from gpubroker.lifecycle.lease_files import KeptJob, KeptLease, KeptReach, KeptServer, LeaseFiles
from gpubroker.testing import ScriptedCloud, offer

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
LEASE = KeptLease(
    offer=offer("RTX 4090", "0.40"), image="i", private_key="the-private-key", nonce="n"
)

REACH = KeptReach(host_keys=("ssh-ed25519 AAAA",), host_identity=HostIdentity.PINNED)
SERVER = KeptServer(job_id="service-1", port=8188)


def a_job(folder: Path) -> KeptJob:
    return KeptJob(
        id="job-1", title="train", outputs=("*.pt",), output_dir=folder, output_limit=5, timeout=9.5
    )


def test_it_comes_back_as_it_was_and_is_this_users_alone(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask says."""
    files = LeaseFiles(tmp_path / "ledger.db.leases")

    files.put_lease("lease-1", LEASE)
    files.put_job("lease-1", a_job(tmp_path))
    files.put_reach("lease-1", REACH)
    files.put_server("lease-1", SERVER)

    assert (files.lease("lease-1"), files.job("lease-1")) == (LEASE, a_job(tmp_path))
    assert (files.reach("lease-1"), files.server("lease-1")) == (REACH, SERVER)
    kept = list((tmp_path / "ledger.db.leases").rglob("*"))
    modes = {stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "ledger.db.leases", *kept]}
    assert modes == {0o700, 0o600}
    assert "the-private-key" not in repr(LEASE)


def test_what_is_damaged_or_absent_is_not_there(tmp_path: Path) -> None:
    """Half a file, or none, lets nobody in."""
    files = LeaseFiles(tmp_path / "ledger.db.leases")
    files.put_lease("lease-1", LEASE)
    (tmp_path / "ledger.db.leases/lease-1/lease.json").write_text('{"offer":')

    assert files.lease("lease-1") is None
    assert files.job("lease-1") is None
    assert files.reach("lease-1") is None
    assert files.server("lease-1") is None
    assert files.lease("lease-2") is None


async def test_a_lease_that_is_to_be_adopted_is_kept_before_its_create_and_until_its_end(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Its folder is there when the vendor hears of it, and gone with the sweep after its end."""
    ledger = tmp_path / "ledger.db"
    files = LeaseFiles(ledger.with_name(f"{ledger.name}.leases"))
    job = Job("x", env={"A": "env-value"}, secrets={"B": "secret-value"})
    during: list[str] = []
    begun: list[str] = []
    async with broker_on(cloud, ledger=ledger) as broker:
        cloud.create_takes(10)
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                async with broker.lease(A_4090, on_owner_death="adopt") as lease:
                    await lease.run(job)
                    text = "".join(p.read_text() for p in files.root.rglob("*.json"))
                    assert "job-" in text
                    assert "env-value" not in text
                    assert "secret-value" not in text

            tasks.start_soon(work)
            await anyio.sleep(5)
            during += [lease_id for lease_id, _ in files.made()]
            begun += [row.id for row in await broker.leases()]
        await broker.wait_released(begun[0], timeout=300)
        await broker.sweep()

    assert during == begun
    assert files.made() == []


async def test_where_it_cannot_be_adopted_it_is_released_and_said_so(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event], tmp_path: Path
) -> None:
    """A provider that cannot go on with another process's job keeps no machine billing for it."""
    ledger = tmp_path / "ledger.db"
    async with (
        broker_on(cloud, ledger=ledger, sweep=False) as dead,
        dead.lease(A_4090, on_owner_death="adopt"),
    ):
        with sqlite3.connect(ledger) as sql:
            sql.execute("UPDATE owners SET pid = ?", [2**22 + 1])
            sql.execute("UPDATE leases SET state = 'busy'")
        sql.close()
        async with broker_on(cloud, ledger=ledger, seed=2) as heir:
            await anyio.sleep(100)
            (row,) = await heir.leases(open_only=False)
            cloud.assert_nothing_running()

    assert row.state is LeaseState.RELEASED
    alarms = [event.text for event in events if event.kind is EventKind.ALARM]
    assert any("scripted cannot go on with a job that another began" in text for text in alarms)


@pytest.mark.parametrize(("ledger", "what"), [(":memory:", "adopt"), ("ledger.db", "keep")])
async def test_what_cannot_be_is_refused_before_anything_is_rented(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path, ledger: str, what: Any
) -> None:
    """A ledger in memory has no heirs, and there are two words only."""
    path = ledger if ledger == ":memory:" else tmp_path / ledger
    async with broker_on(cloud, ledger=path) as broker:
        with pytest.raises(InvalidValue, match="on_owner_death"):
            await broker.run(["x"], A_4090, on_owner_death=what)

    assert not cloud.creates
