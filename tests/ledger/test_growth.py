"""What a broker asks with every pass costs the same, however many leases lie behind it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pytest

from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.rows import Owner
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import Money
from gpubroker.policy.budget import Limit

from .conftest import ENTROPY, lease_row

#: What is asked while leases are held, by name.
ASKED: Final[dict[str, Callable[[Ledger], Any]]] = {
    "whether anything is open": lambda ledger: ledger.anything_open(),
    "open leases": lambda ledger: ledger.leases(),
    "open leases of a provider": lambda ledger: ledger.leases(provider="acme"),
    "their owners": lambda ledger: ledger.owners(),
    "what was asked of an owner": lambda ledger: ledger.undisturbed("broker-1"),
    "today's limit": lambda ledger: ledger.usages(
        lambda _: [Limit("today", Money(5), since=900_000.0, until=986_400.0)], 900_001.0
    ),
    "what today has taken": lambda ledger: ledger.committed(
        Limit("today", Money(5), since=900_000.0, until=986_400.0)
    ),
    "what is to be settled": lambda ledger: ledger.unsettled("acme", since=0.0, until=901_000.0),
    "one lease": lambda ledger: ledger.lease("lease-1"),
    "whose mark it is": lambda ledger: ledger.lease_of_mark("mark-1"),
    "a lease's jobs": lambda ledger: ledger.jobs("lease-1"),
    "a pool's leases": lambda ledger: ledger.pool("images"),
    "a pool's cold starts": lambda ledger: ledger.cold_starts("images", 5),
    "those of one that is new": lambda ledger: ledger.cold_starts("clips", 5),
    "a pool's newest jobs": lambda ledger: ledger.pool_uses("images", 5),
    "who waits": lambda ledger: ledger.pool_waits("images", "me", "here", 900_000.0),
}


#: Leases behind it: a few days' and some years'.
FEW, MANY = 20, 420
OWNER = Owner(id="broker-1", host="here", pid=1, started="0", expires_at=900_060.0, closed_at=None)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """How many steps SQLite's machine takes for each question, with each of the two pasts."""
    path = tmp_path_factory.mktemp("growth") / "ledger.db"
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", watched)
        ledger = Ledger(path, entropy=ENTROPY)
    with closing(ledger), closing(connect(path)) as sql:
        ledger.put_owner(OWNER)
        ledger.reserve(lease(0, created_at=900_000.0), [])
        put_past(ledger, sql, range(1, FEW))
        few = {name: steps(opened[0], ask, ledger) for name, ask in ASKED.items()}
        put_past(ledger, sql, range(FEW, MANY))
        many = {name: steps(opened[0], ask, ledger) for name, ask in ASKED.items()}
    return {name: (few[name], many[name]) for name in ASKED}


def put_past(ledger: Ledger, sql: sqlite3.Connection, numbers: range) -> None:
    """Leases that were released, paid and settled, one every ten minutes."""
    for number in numbers:
        ledger.reserve(lease(number, created_at=600.0 * number), [])
    with sql:
        sql.execute(
            "UPDATE leases SET state = 'released', ready_at = created_at + 30, counted = spent,"
            " ended_at = created_at + 90, settled_at = created_at + 900 WHERE created_at < 900000"
        )
        sql.execute(
            "INSERT OR IGNORE INTO jobs (id, lease_id, title, state, started_at, ended_at)"
            " SELECT 'job of ' || id, id, 'render', 'exited', ready_at, ended_at FROM leases"
            " WHERE state = 'released'"
        )


def lease(number: int, created_at: float) -> LeaseRow:
    """One machine that is rented for a pool."""
    return lease_row(
        number,
        request_id=f"request-{number}",
        machine_id=f"machine-{number}",
        created_at=created_at,
        deadline=created_at + 3600,
        pool="images",
    )


def steps(connection: sqlite3.Connection, ask: Callable[[Ledger], object], ledger: Ledger) -> int:
    """How many steps a question takes: a measure of the work that is no time."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 1)
    ask(ledger)
    connection.set_progress_handler(None, 1)
    return count


@pytest.mark.parametrize("name", ASKED)
def test_a_long_past_costs_nothing(counted: dict[str, tuple[int, int]], name: str) -> None:
    """A question about now reads what is there now."""
    few, many = counted[name]

    assert 0 < many <= 1.2 * few
