"""A ledger that cannot be written: nothing is rented, and what is rented is given up."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from gpubroker import AsyncBroker, Event, LeaseReleased, LedgerError, Requirements
from gpubroker.model.events import EventKind
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090: Final = Requirements(gpu="RTX 4090")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def engine(broker: AsyncBroker) -> Any:
    """The connection that this broker writes with."""
    access: Any = broker._parts().ledger  # pyright: ignore[reportPrivateUsage]
    return access._ledger._store._connection


def full(broker: AsyncBroker) -> None:
    connection = engine(broker)
    connection.execute("PRAGMA max_page_count = 1")
    # The pages that are there already have some room left.
    for statement in (
        "INSERT INTO facts VALUES (:name, 'filler filler filler filler filler filler')",
        "INSERT INTO owners VALUES (:name, 'h', 1, 's', 0.0, NULL)",
    ):
        with suppress(sqlite3.DatabaseError):
            for number in range(10_000):
                connection.execute(statement, {"name": f"filler {number}"})


def read_only(broker: AsyncBroker) -> None:
    engine(broker).execute("PRAGMA query_only = ON")


def writable(broker: AsyncBroker) -> None:
    engine(broker).execute("PRAGMA query_only = OFF")


#: What becomes of the file before a broker opens it.
BEFORE: Final[dict[str, Callable[[Path], object]]] = {
    "a folder": lambda place: place.mkdir(),
    "another file": lambda place: place.write_bytes(b"shopping list " * 500),
    "header only": lambda place: place.write_bytes(b"SQLite format 3\0".ljust(100, b"\1")),
}


@pytest.mark.parametrize("spoil", BEFORE.values(), ids=BEFORE)
async def test_a_ledger_that_cannot_be_opened_rents_nothing(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, spoil: Callable[[Path], object]
) -> None:
    """The error says so before any provider is even asked."""
    spoil(place)

    with pytest.raises(LedgerError):
        async with broker_on(cloud, ledger=place):
            pass

    assert cloud.creates == []


@pytest.mark.parametrize("spoil", [full, read_only])
async def test_a_ledger_that_takes_no_intent_lets_no_create_leave(
    cloud: ScriptedCloud,
    broker_on: MakeBroker,
    place: Path,
    spoil: Callable[[AsyncBroker], None],
) -> None:
    """However it came to be so while the broker was open."""
    async with broker_on(cloud, ledger=place, sweep=False) as broker:
        spoil(broker)
        with pytest.raises(LedgerError, match="make "):
            await broker.run(["x"], A_4090)

    assert cloud.creates == []


async def test_a_ledger_that_is_held_by_another_process_lets_no_create_leave(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path
) -> None:
    """Waiting for it has an end, and then nothing is rented."""
    async with broker_on(cloud, ledger=place, sweep=False) as broker:
        engine(broker).execute("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="held by another process"):
                await broker.run(["x"], A_4090)

    assert cloud.creates == []


async def test_a_machine_that_the_ledger_cannot_be_told_of_is_given_up(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """Only this process knows it, so it is destroyed at once, and booked when that can be done."""
    cloud.create_takes(5)
    async with broker_on(cloud, ledger=place, sweep=False) as broker:
        async with anyio.create_task_group() as tasks:

            async def lock() -> None:
                await anyio.sleep(2)
                read_only(broker)

            tasks.start_soon(lock)
            with pytest.raises(LeaseReleased, match="cannot be written"):
                await broker.run(["x"], A_4090)
        running = list(cloud.running)
        await anyio.sleep(30)
        destroyed = list(cloud.running) == []
        writable(broker)
        await anyio.sleep(60)
        (row,) = await broker.leases(open_only=False)
        assert await broker.verify() == []

    assert len(running) <= 1
    assert destroyed
    assert not row.state.open
    assert row.machine_id is not None
    assert any(e.kind is EventKind.ALARM and "cannot be written" in e.text for e in events)


async def test_a_machine_is_given_up_though_its_release_cannot_be_recorded(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """Releasing needs no ledger; once it can be written again, it says what has happened."""
    cloud.job_takes(math.inf)
    async with broker_on(cloud, ledger=place, sweep=False) as broker:
        async with broker.lease(A_4090) as lease:
            read_only(broker)
            lease.release("done")
            await anyio.sleep(30)
            running = list(cloud.running)
            writable(broker)
            await anyio.sleep(60)
        (row,) = await broker.leases(open_only=False)
        assert await broker.verify() == []

    assert running == []
    assert not row.state.open
    assert any(e.kind is EventKind.ALARM and "cannot be written" in e.text for e in events)


async def test_a_new_ledger_beside_an_old_key_is_alarmed_about(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """The former one was lost, perhaps with machines running."""
    async with broker_on(cloud, ledger=place):
        pass
    first = [event for event in events if event.kind is EventKind.ALARM]
    place.unlink()

    async with broker_on(cloud, ledger=place, seed=2):
        pass

    assert first == []
    assert any("`gpubroker adopt`" in e.text for e in events if e.kind is EventKind.ALARM)


async def test_a_ledger_that_others_may_read_is_alarmed_about(
    cloud: ScriptedCloud, broker_on: MakeBroker, place: Path, events: list[Event]
) -> None:
    """With the command that mends it."""
    async with broker_on(cloud, ledger=place):
        pass
    place.chmod(0o644)

    async with broker_on(cloud, ledger=place):
        pass

    alarms = [event.text for event in events if event.kind is EventKind.ALARM]
    assert alarms == [f"the ledger {place} may be read by others; run: chmod 600 {place}"]
