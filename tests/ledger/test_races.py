"""Many processes that want the same money at once: a cap holds at every commit."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg
import pytest

from gpubroker.errors import LedgerBusy
from gpubroker.ledger.ledger import Ledger, OverLimit
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.places import Place, PostgresUrl
from gpubroker.policy.budget import Limit

from .conftest import ENTROPY, NewLease, both_engines

CAP: Final = Money("10.00")
TURNS: Final = 12
#: Judges every change by itself, inside of the transaction that makes it: no commit escapes it.
_WATCH_SQLITE: Final = """
    CREATE TABLE watched (highest INTEGER NOT NULL);
    INSERT INTO watched VALUES (0);
    CREATE TRIGGER watch_{name} AFTER {event} ON leases BEGIN
        UPDATE watched SET highest = MAX(highest, (SELECT SUM(reserved + spent) FROM leases));
    END;
"""
_WATCH_POSTGRES: Final = """
    CREATE TABLE watched (highest BIGINT NOT NULL);
    INSERT INTO watched VALUES (0);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE public.watched SET highest =
            GREATEST(highest, (SELECT SUM(reserved + spent) FROM gpubroker.leases));
        RETURN NULL;
    END $$;
    CREATE TRIGGER watch AFTER INSERT OR UPDATE ON gpubroker.leases
        FOR EACH ROW EXECUTE FUNCTION watch();
"""


def persist(operation: Callable[[], LeaseRow | None]) -> LeaseRow | None:
    """Carry out what waits for other processes, until it is its turn."""
    while True:
        with suppress(LedgerBusy):
            return operation()


def spend(place: Place, new_lease: NewLease, seed: int) -> None:
    """What one process does: reserve at random, and settle or release some of it."""
    chance = random.Random(seed)
    ledger = Ledger(place, entropy=ENTROPY, busy=0.5)
    limit = Limit("cap", CAP)
    for turn in range(TURNS):
        row = replace(
            new_lease(f"{chance.randint(1, 120) / 100:.2f}"),
            id=f"lease-{seed}-{turn}",
            mark=f"mark-{seed}-{turn}",
        )

        def reserve(row: LeaseRow = row) -> LeaseRow:
            ledger.reserve(row, [limit])
            return row

        try:
            persist(reserve)
        except OverLimit:
            continue
        end(ledger, row, chance)
    ledger.close()


def end(ledger: Ledger, row: LeaseRow, chance: random.Random) -> None:
    """Refused, or released at a part of what was held; or left as it is, as by a crash."""
    nothing = Money(0)
    way = chance.randrange(4)
    if way == 0:
        persist(lambda: ledger.move(row, LeaseState.REFUSED, 1001.0, "refused", reserved=nothing))
    elif way < 3:
        part = Money.from_micros(row.reserved.micros_up * chance.randint(0, 20) // 100)
        moved = persist(
            lambda: ledger.move(row, LeaseState.PROVISIONING, 1001.0, "accepted", machine_id=row.id)
        )
        assert moved is not None
        asked = persist(lambda: ledger.request_release(moved, 1002.0, "done"))
        assert asked is not None
        told = persist(lambda: ledger.note(asked, 1003.0, "acknowledged", acknowledged_at=1003.0))
        assert told is not None
        persist(
            lambda: ledger.move(
                told, LeaseState.RELEASED, 1004.0, "released", reserved=nothing, spent=part
            )
        )


@contextmanager
def children(work: Callable[[int], None], number: int) -> Generator[list[int]]:
    """So many processes, forked; killed at the end, if they still run."""
    pids: list[int] = []
    try:
        for index in range(number):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    work(index)
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        yield pids
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def disturb(pids: list[int], chance: random.Random) -> list[int]:
    """Kill every eighth process at some moment, and let as many stand still for a while.

    Returns:
        The exit statuses of all of them.
    """
    killed = set(chance.sample(pids, len(pids) // 8))
    paused = list(set(chance.sample(pids, len(pids) // 8)) - killed)
    statuses: dict[int, int] = {}
    for pid in [*killed, *paused]:
        time.sleep(chance.uniform(0, 0.02))
        if pid not in statuses:
            os.kill(pid, signal.SIGKILL if pid in killed else signal.SIGSTOP)
    time.sleep(0.05)
    for pid in paused:
        os.kill(pid, signal.SIGCONT)
    for pid in pids:
        _, statuses[pid] = os.waitpid(pid, 0)
    return [status for pid, status in statuses.items() if pid not in killed]


@both_engines
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_no_commit_of_any_process_exceeds_a_cap(
    place: Place, new_lease: NewLease, seed: int
) -> None:
    """Many processes, some killed and some stopped in the middle; the cap is used up in the end."""
    ledger = Ledger(place, entropy=ENTROPY)
    watch(place)
    processes = 64 if isinstance(place, Path) else 16

    with children(lambda index: spend(place, new_lease, seed * 1000 + index), processes) as pids:
        statuses = disturb(pids, random.Random(seed))

    held = ledger.committed(Limit("cap", CAP))
    assert set(statuses) == {0}
    assert highest(place) <= CAP.micros_up
    assert held <= CAP
    assert violations(ledger.leases(open_only=False), ledger.events()) == []
    ledger.reserve(replace(new_lease(CAP - held), id="rest", mark="rest"), [Limit("cap", CAP)])
    with pytest.raises(OverLimit):
        ledger.reserve(replace(new_lease("0.000001"), id="more", mark="more"), [Limit("cap", CAP)])
    assert ledger.committed(Limit("cap", CAP)) == CAP
    assert highest(place) == CAP.micros_up
    ledger.close()


@both_engines
def test_the_watch_sees_a_cap_that_is_exceeded(place: Place, new_lease: NewLease) -> None:
    """A lease that nobody checked: the test above could fail."""
    ledger = Ledger(place, entropy=ENTROPY)
    watch(place)

    ledger.reserve(new_lease(CAP + Money("0.01")), [])

    assert highest(place) > CAP.micros_up
    ledger.close()


def watch(place: Place) -> None:
    """From now on the ledger itself keeps the highest sum that it ever held."""
    if isinstance(place, PostgresUrl):
        with psycopg.connect(place.secret) as server:
            server.execute(_WATCH_POSTGRES)
        return
    with closing(sqlite3.connect(place)) as file:
        file.executescript(_WATCH_SQLITE.format(name="new", event="INSERT"))
        trigger = _WATCH_SQLITE[_WATCH_SQLITE.index("CREATE TRIGGER") :]
        file.executescript(trigger.format(name="change", event="UPDATE"))


def highest(place: Place) -> int:
    """That sum, in micro-dollars."""
    query: Final = "SELECT highest FROM watched"
    if isinstance(place, PostgresUrl):
        with psycopg.connect(place.secret) as server:
            row = server.execute(query).fetchone()
    else:
        with closing(sqlite3.connect(place)) as file:
            row = file.execute(query).fetchone()
    assert row is not None
    return int(row[0])
