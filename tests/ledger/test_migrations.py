"""Ledgers of earlier versions, on both engines: everything on record is kept, whatever happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import pytest

from gpubroker.errors import LedgerUnusable
from gpubroker.ledger import schema
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.schema import MIGRATIONS
from gpubroker.ledger.sql import Sql
from gpubroker.ledger.verify import violations
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.leases import LeaseRow
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.places import Place, PostgresUrl

from .conftest import ENTROPY, NewLease, both_engines

pytestmark = both_engines

RECORD: Final = DecisionRecord(id="request-1", wanted="A100", asked_at=1000.0)

#: A row of each table, in columns that the first version has already.
ROWS: Final = (
    "INSERT INTO facts (name, value) VALUES ('ledger id', 'abcdefgh')",
    "INSERT INTO facts (name, value) VALUES ('swept acme', '1234.5')",
    """INSERT INTO owners (id, host, pid, started, expires_at)
    VALUES ('broker-1', 'host', 7, 'then', 9999.5)""",
    """INSERT INTO events (lease_id, at, epoch, kind, target, detail)
    VALUES ('lease-1', 1000.0, 1, 'intent', 'requested', '1x RTX 4090')""",
    """INSERT INTO jobs (id, lease_id, title, state, started_at)
    VALUES ('job-1', 'lease-1', 'train', 'running', 1001.5)""",
)


def transaction(ledger: Ledger) -> Any:
    return ledger._store.transaction()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def at_version(
    place: Place, monkeypatch: pytest.MonkeyPatch, new_lease: NewLease
) -> Callable[[int], LeaseRow]:
    """Makes the ledger as an earlier version did, and puts a row into each of its first tables."""

    def make(version: int) -> LeaseRow:
        with monkeypatch.context() as earlier:
            earlier.setattr(schema, "MIGRATIONS", MIGRATIONS[:version])
            ledger = Ledger(place, entropy=ENTROPY)
        row = new_lease("1.25", tags=("night",), machine_id="m-1")
        with closing(ledger), transaction(ledger) as sql:
            sql.execute("DELETE FROM facts")
            for statement in ROWS:
                sql.execute(statement)
            sql.execute(
                "INSERT INTO leases (id, request_id, provider, state, epoch, owner, mark, title,"
                " offer_id, machine_id, hourly, quantum, reserved, spent, created_at, deadline,"
                " tags) VALUES ('lease-1', 'request-1', 'acme', 'requested', 1, 'broker-1',"
                " 'mark-1', '1x RTX 4090', 'offer-1', 'm-1', 400000, 1.0, 1250000, 0, 1000.0,"
                " 4600.0, 'night')"
            )
            sql.execute(
                "INSERT INTO requests (id, at, record) VALUES ('request-1', 1000.0, :record)",
                {"record": RECORD.to_json()},
            )
        return row

    return make


def check_kept(ledger: Ledger, row: LeaseRow) -> None:
    """Everything that was put into an earlier version is there, and can be worked with."""
    assert ledger.id == "abcdefgh"
    assert ledger.leases() == [row]
    assert [event.kind for event in ledger.events()] == ["intent"]
    assert ledger.record("request-1") == RECORD
    assert ledger.swept() == {"acme": 1234.5}
    assert ledger.owners()["broker-1"].expires_at == 9999.5
    assert violations(ledger.leases(), ledger.events()) == []
    busy = ledger.move(row, S.PROVISIONING, 1002.0, "accepted")
    assert ledger.request_release(busy, 1003.0, "done").state is S.RELEASING


def version_of(place: Place) -> int:
    """Read without opening it as a ledger, which would change it."""
    from gpubroker.ledger.store import Store
    from gpubroker.ledger.store_postgres import PostgresStore

    store = PostgresStore(place) if isinstance(place, PostgresUrl) else Store(place)
    with closing(store), store.reading() as sql:
        return sql.version()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_every_earlier_version_is_brought_up_to_date(
    place: Place, at_version: Callable[[int], LeaseRow], version: int
) -> None:
    """With all that it holds: nothing that bills is lost."""
    row = at_version(version)
    assert version_of(place) == version

    with closing(Ledger(place, entropy=ENTROPY)) as ledger:
        check_kept(ledger, row)

    assert version_of(place) == len(MIGRATIONS)


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_a_migration_that_fails_leaves_the_version_before(
    place: Place,
    at_version: Callable[[int], LeaseRow],
    version: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of the missing migrations happen, or none of them; trying again does it."""
    row = at_version(version) if version else None

    def failing(sql: Sql) -> None:
        sql.execute("CREATE TABLE half (done TEXT)")
        sql.execute("DELETE FROM leases")
        raise RuntimeError("power")

    with monkeypatch.context() as broken:
        broken.setattr(schema, "MIGRATIONS", (*MIGRATIONS, failing))
        with pytest.raises(RuntimeError, match="power"):
            Ledger(place, entropy=ENTROPY)

    assert version_of(place) == version
    with closing(Ledger(place, entropy=ENTROPY)) as ledger:
        if row is not None:
            check_kept(ledger, row)


_STOP_INSIDE = """
import sys, time
from gpubroker.ledger import schema
from gpubroker.ledger.ledger import Ledger
from gpubroker.model.places import ledger_place

def stopping(sql):
    sql.execute("CREATE TABLE half (done TEXT)")
    sql.execute("DELETE FROM leases")
    print("inside", flush=True)
    time.sleep(60)

schema.MIGRATIONS = (*schema.MIGRATIONS, stopping)
Ledger(ledger_place(sys.argv[1]), entropy=b"12345")
"""


@pytest.fixture
def stopped_inside(place: Place) -> Callable[[], None]:
    """Starts a process that migrates, and kills it before it is done."""

    def kill() -> None:
        url = place.secret if isinstance(place, PostgresUrl) else str(place)
        with subprocess.Popen(
            [sys.executable, "-c", _STOP_INSIDE, url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "inside\n"
            process.kill()

    return kill


def test_a_process_killed_while_it_migrates_leaves_the_version_before(
    place: Place, at_version: Callable[[int], LeaseRow], stopped_inside: Callable[[], None]
) -> None:
    """SIGKILL in the middle: the next one finds the old ledger whole, and migrates it."""
    row = at_version(1)

    stopped_inside()

    with closing(Ledger(place, entropy=ENTROPY, busy=10.0)) as ledger:
        check_kept(ledger, row)


def test_a_newer_ledger_is_refused_and_left_alone(
    place: Place, at_version: Callable[[int], LeaseRow]
) -> None:
    """An older program must not write what it does not understand; it says what to do."""
    at_version(len(MIGRATIONS))
    with closing(Ledger(place, entropy=ENTROPY)) as ledger, transaction(ledger) as sql:
        sql.set_version(99)

    with pytest.raises(LedgerUnusable, match=r"version 99, newer than .*: update gpubroker here"):
        Ledger(place, entropy=ENTROPY)

    assert version_of(place) == 99


def test_a_ledger_that_becomes_newer_meanwhile_can_still_be_released_from(
    place: Place, at_version: Callable[[int], LeaseRow]
) -> None:
    """A newer program adds columns under a running broker, which must still give up its machine."""
    row = at_version(len(MIGRATIONS))
    with closing(Ledger(place, entropy=ENTROPY)) as ledger:
        with closing(Ledger(place, entropy=ENTROPY)) as newer, transaction(newer) as sql:
            for table in ("leases", "events", "owners", "facts", "requests"):
                sql.execute(f"ALTER TABLE {table} ADD COLUMN added_later TEXT")
            sql.set_version(99)

        check_kept(ledger, replace(row))
        ledger.put_swept("acme", 2.0)
        ledger.put_record(RECORD)
        ledger.put_owner(ledger.owners()["broker-1"])
