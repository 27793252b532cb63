"""How asynchronous code waits for a ledger that somebody else holds."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from gpubroker.errors import LedgerBusy, StaleOwner
from gpubroker.ledger.access import LedgerAccess
from gpubroker.ledger.ledger import Ledger

from .conftest import NewLease

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def held_for(path: Path, seconds: float) -> AsyncGenerator[None]:
    """Another process writes, for so long."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:

        async def let_go() -> None:
            await anyio.sleep(seconds)
            other.execute("ROLLBACK")

        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            yield


def access(ledger: Ledger, patience: float = 5.0) -> LedgerAccess:
    return LedgerAccess(ledger, patience=patience, source=random.Random(1))


async def test_without_anybody_in_the_way_nothing_is_awaited(
    ledger: Ledger, new_lease: NewLease
) -> None:
    """A caller that is being cancelled still gets its write done."""
    row = new_lease()

    with anyio.CancelScope() as scope:
        scope.cancel()
        await access(ledger)(lambda it: it.reserve(row, []))

    assert ledger.leases() == [row]


async def test_an_operation_waits_for_another_process(
    ledger: Ledger, path: Path, new_lease: NewLease
) -> None:
    """Without holding the event loop for longer than one busy time-out."""
    row, ticks = new_lease(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        async with held_for(path, 0.3):
            await access(ledger)(lambda it: it.reserve(row, []))
        tasks.cancel_scope.cancel()

    assert ledger.leases() == [row]
    assert ticks >= 3


async def test_patience_ends(ledger: Ledger, path: Path, new_lease: NewLease) -> None:
    """A create that cannot be recorded in time is not sent."""
    async with held_for(path, 0.4):
        with pytest.raises(LedgerBusy):
            await access(ledger, patience=0.1)(lambda it: it.reserve(new_lease(), []))

    assert ledger.leases() == []


async def test_what_has_happened_already_is_written_however_long_it_takes(
    ledger: Ledger, path: Path, new_lease: NewLease
) -> None:
    """`insist` outlasts any patience."""
    row = new_lease()
    async with held_for(path, 0.4):
        await access(ledger, patience=0.05).insist(lambda it: it.reserve(row, []))

    assert ledger.leases() == [row]


async def test_insisting_ends_where_it_cannot_help(ledger: Ledger, new_lease: NewLease) -> None:
    """A lost lease and a refused row are errors at once: waiting would mend neither."""
    row = new_lease()
    ledger.reserve(row, [])
    ledger.take_over(row, "broker-2", 1.0, "dead")

    with anyio.fail_after(1):
        with pytest.raises(StaleOwner):
            await access(ledger).insist(lambda it: it.note(row, 2.0, "x"))
        with pytest.raises(Exception, match="UNIQUE"):
            await access(ledger).insist(lambda it: it.reserve(row, []))


async def test_at_once_is_at_once(ledger: Ledger, path: Path, new_lease: NewLease) -> None:
    """On the way out of a scope the ledger gets one busy time-out and no more."""
    async with held_for(path, 0.4):
        began = anyio.current_time()
        with pytest.raises(LedgerBusy):
            access(ledger).at_once(lambda it: it.reserve(new_lease(), []))

        assert anyio.current_time() - began < 0.25
