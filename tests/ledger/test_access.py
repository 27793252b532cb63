"""How asynchronous code waits for a ledger that somebody else holds."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager

import anyio
import psycopg
import pytest

from gpubroker.errors import BrokerClosed, LedgerBusy, LedgerUnusable, StaleOwner
from gpubroker.ledger.access import LedgerAccess, open_ledger
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.thread import LedgerThread
from gpubroker.model.places import Place, PostgresUrl

from .conftest import ENTROPY, NewLease, both_engines

pytestmark = [pytest.mark.anyio, both_engines]

#: The lock that a writer of a ledger in PostgreSQL takes.
WRITERS = 0x67707562726F6B72


@contextmanager
def locked(place: Place) -> Generator[Callable[[], object]]:
    """Another process writes, until what this gives is called."""
    if isinstance(place, PostgresUrl):
        with psycopg.connect(place.secret) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [WRITERS])
            yield other.rollback
    else:
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield lambda: other.execute("ROLLBACK")


@asynccontextmanager
async def held_for(place: Place, seconds: float) -> AsyncGenerator[None]:
    """Another process writes, for so long."""
    with locked(place) as let_go:

        async def wait() -> None:
            await anyio.sleep(seconds)
            let_go()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            yield


@asynccontextmanager
async def access_to(ledger: Ledger, patience: float = 5.0) -> AsyncGenerator[LedgerAccess]:
    """The ledger as a broker has it: PostgreSQL's in a thread."""
    thread = LedgerThread() if isinstance(ledger.place, PostgresUrl) else None
    yield LedgerAccess(ledger, patience=patience, source=random.Random(1), thread=thread)
    if thread is not None:
        await thread.end(ledger.close, ledger.abandon)


@asynccontextmanager
async def in_thread(place: Place) -> AsyncGenerator[LedgerAccess]:
    """The ledger in a thread, whatever the engine, for a caller with little patience."""
    thread = LedgerThread(grace=0.1)
    ledger = await thread.carry_out(lambda: Ledger(place, entropy=ENTROPY), math.inf)
    yield LedgerAccess(ledger, patience=0.1, source=random.Random(1), thread=thread)
    await thread.end(ledger.close, ledger.abandon)


async def test_a_caller_that_is_being_cancelled_still_gets_its_write_done(
    ledger: Ledger, new_lease: NewLease
) -> None:
    """And hears of it: with nobody in the way, nothing is given up half-way."""
    row, heard = new_lease(), list[str]()

    async with access_to(ledger) as access:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await access(lambda it: it.reserve(row, []))
            heard.append("done")

        assert heard == ["done"]
        assert await access(lambda it: it.leases()) == [row]


async def test_an_operation_waits_for_another_process(
    ledger: Ledger, place: Place, new_lease: NewLease
) -> None:
    """Without holding the event loop for longer than one busy time-out."""
    row, ticks = new_lease(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with access_to(ledger) as access, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        async with held_for(place, 0.3):
            await access(lambda it: it.reserve(row, []))
        tasks.cancel_scope.cancel()

        assert await access(lambda it: it.leases()) == [row]
    assert ticks >= 3


async def test_patience_ends(ledger: Ledger, place: Place, new_lease: NewLease) -> None:
    """A create that cannot be recorded in time is not sent."""
    async with access_to(ledger, patience=0.1) as access:
        async with held_for(place, 0.4):
            with pytest.raises(LedgerBusy):
                await access(lambda it: it.reserve(new_lease(), []))

        assert await access.insist(lambda it: it.leases()) == []


async def test_what_has_happened_already_is_written_however_long_it_takes(
    ledger: Ledger, place: Place, new_lease: NewLease
) -> None:
    """`insist` outlasts any patience."""
    row = new_lease()
    async with access_to(ledger, patience=0.05) as access:
        async with held_for(place, 0.4):
            await access.insist(lambda it: it.reserve(row, []))

        assert await access.insist(lambda it: it.leases()) == [row]


async def test_insisting_ends_where_it_cannot_help(ledger: Ledger, new_lease: NewLease) -> None:
    """A lost lease and a refused row are errors at once: waiting would mend neither."""
    row = new_lease()
    ledger.reserve(row, [])
    ledger.take_over(row, "broker-2", 1.0, "dead")

    async with access_to(ledger) as access:
        with anyio.fail_after(10):
            with pytest.raises(StaleOwner):
                await access.insist(lambda it: it.note(row, 2.0, "x"))
            with pytest.raises(Exception, match=r"(?i)unique"):
                await access.insist(lambda it: it.reserve(row, []))


async def test_at_once_holds_the_loop_for_one_busy_time_out_and_no_more(
    ledger: Ledger, place: Place, new_lease: NewLease
) -> None:
    """On the way out of a scope; what a thread has begun goes on, and comes before what follows."""
    row = new_lease()
    async with access_to(ledger) as access:
        with locked(place) as let_go:
            with pytest.raises(LedgerBusy):
                access.at_once(lambda it: it.reserve(row, []))
            let_go()

        found = await access(lambda it: it.leases())

    # The thread may have given up waiting for its turn before the lock was free again.
    assert found in ([], [row])


async def test_a_ledger_is_opened_and_closed_for_a_broker(place: Place) -> None:
    """With whatever it needs, which is gone afterwards."""
    before = threading.active_count()

    async with open_ledger(place, entropy=ENTROPY, patience=5.0, source=random.Random(1)) as access:
        assert await access(lambda it: it.id) == Ledger(None, entropy=ENTROPY).id
        assert access.at_once(lambda it: it.leases()) == []

    assert threading.active_count() == before
    with pytest.raises(BrokerClosed, match="closed"):
        await access(lambda it: it.leases())


async def test_a_forked_child_is_told_to_open_its_own(ledger: Ledger) -> None:
    """It has neither the connection nor the thread, and must not wait for an answer."""
    async with access_to(ledger) as access:
        assert await access(lambda it: it.leases()) == []
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            try:
                access.at_once(lambda it: it.leases())
            except BrokerClosed as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as pipe:
            assert "before the fork" in pipe.read()


async def test_what_has_not_begun_when_patience_ends_never_will(
    place: Place, new_lease: NewLease
) -> None:
    """So that a caller who is told "busy" knows that nothing has happened."""
    go_on = threading.Event()

    def wait(_: Ledger) -> bool:
        return go_on.wait(30)

    async with in_thread(place) as access, anyio.create_task_group() as tasks:
        tasks.start_soon(access.insist, wait)
        await anyio.sleep(0.01)
        with pytest.raises(LedgerBusy, match="nothing has happened"):
            await access(lambda it: it.reserve(new_lease(), []))
        go_on.set()

        assert await access.insist(lambda it: it.leases()) == []


async def test_what_has_begun_is_done_though_nobody_waits_for_it(
    place: Place, new_lease: NewLease
) -> None:
    """And the caller is told that it may be."""
    row, go_on = new_lease(), threading.Event()

    def slow(it: Ledger) -> None:
        go_on.wait(30)
        it.reserve(row, [])

    async with in_thread(place) as access:
        with pytest.raises(LedgerUnusable, match="may still be done"):
            await access(slow)
        go_on.set()

        assert await access.insist(lambda it: it.leases()) == [row]
