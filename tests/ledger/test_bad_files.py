"""Files that are no good ledger, or stop being one: said clearly, with what to do next."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubroker.errors import LedgerError, LedgerUnusable
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.verify import violations

from .conftest import ENTROPY, NewLease


@pytest.fixture
def written(path: Path, new_lease: NewLease) -> bytes:
    """The bytes of a ledger with a hundred leases; the file is there too."""
    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        for _ in range(100):
            ledger.reserve(new_lease(), [])
    return path.read_bytes()


@pytest.fixture
def copy(path: Path, written: bytes) -> Path:
    """The same, in another file."""
    copy = path.with_name("copy.db")
    copy.write_bytes(written)
    return copy


def leases_in(path: Path) -> int:
    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        return len(ledger.leases(open_only=False))


#: What may become of a file's bytes -> what is said.
DAMAGE: Final[dict[str, tuple[Callable[[bytes], bytes], str]]] = {
    "header only": (lambda data: data[:100], "malformed|not a database"),
    "first page only": (lambda data: data[:4096], "malformed"),
    "cut in the middle": (lambda data: data[: len(data) // 2], "malformed"),
    "zeros": (lambda data: bytes(len(data)), "not a database"),
    "another file": (lambda data: b"shopping list " * 500, "not a database"),
    "schema gone": (lambda data: data[:100] + bytes(3996) + data[4096:], "malformed"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_ledger_is_refused_at_once(
    path: Path, written: bytes, damage: Callable[[bytes], bytes], said: str
) -> None:
    """Not an empty answer: no machine may be forgotten. The file is left for whoever mends it."""
    path.write_bytes(damage(written))

    with pytest.raises(LedgerUnusable, match=said) as refused:
        leases_in(path)

    assert "gpubroker adopt" in str(refused.value)
    assert path.read_bytes() == damage(written)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(places=st.lists(st.integers(100, 10**9), min_size=1, max_size=30), value=st.integers(0, 255))
def test_flipped_bytes_are_an_error_or_are_found_or_hurt_nothing(
    path: Path, copy: Path, places: list[int], value: int
) -> None:
    """Whatever they hit, no exception of the engine's comes through, and nothing is made up."""
    data = bytearray(copy.read_bytes())
    for place in places:
        data[place % len(data)] = value
    path.write_bytes(data)
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)

    try:
        with closing(Ledger(path, entropy=ENTROPY)) as ledger:
            leases = ledger.leases(open_only=False)
            sound = not ledger.damage() and not violations(leases, ledger.events())
    except LedgerError:
        return

    assert not sound or len(leases) == 100


def test_damage_to_an_index_is_found_by_the_engines_own_check(path: Path, written: bytes) -> None:
    """An index that lacks a row would hide a machine from those who look by it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA writable_schema = ON")
        sql.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'created_at)', 'deadline)')"
            " WHERE name = 'leases_by_time'"
        )

    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        assert any("leases_by_time" in line for line in ledger.damage())


def test_a_good_ledger_has_no_damage(path: Path, written: bytes) -> None:
    """And nothing for its owner to put right."""
    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        assert ledger.damage() == ledger.concerns() == []
        path.chmod(0o644)
        assert ledger.concerns() == [
            f"the ledger {path} may be read by others; run: chmod 600 {path}"
        ]


@pytest.mark.parametrize(
    ("pragma", "said"),
    [("max_page_count = 1", "full; make room"), ("query_only = ON", "readonly.*make the file")],
)
def test_a_ledger_that_takes_no_more_says_why_and_is_whole(
    path: Path, written: bytes, new_lease: NewLease, pragma: str, said: str
) -> None:
    """Full or read-only: what is there can be read, and what could not be written is not there."""
    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        with ledger._store.reading() as sql:  # pyright: ignore[reportPrivateUsage]
            sql.execute(f"PRAGMA {pragma}")

        written_more: list[int] = []

        def write_on() -> None:
            for number in range(1000):
                ledger.reserve(new_lease(id=f"more-{number}", mark=f"more-{number}"), [])
                written_more.append(number)

        with pytest.raises(LedgerUnusable, match=said):
            write_on()

        leases = ledger.leases()
        assert len(leases) == 100 + len(written_more)
        assert violations(leases, ledger.events()) == []


def test_opening_a_ledger_twice_in_a_process_drops_no_lock(path: Path, written: bytes) -> None:
    """The system drops a process's locks on a file when any of its descriptors is closed."""
    with closing(Ledger(path, entropy=ENTROPY)) as ledger:
        ledger.leases()
        Ledger(path, entropy=ENTROPY).close()

        # Leaving WAL needs a lock that nobody gets while somebody else has the file open.
        done = subprocess.run(
            [sys.executable, "-c", _LEAVE_WAL, path], capture_output=True, text=True, check=True
        )

    assert done.stdout.strip() == "database is locked"


_LEAVE_WAL = """
import sqlite3, sys
try:
    print(sqlite3.connect(sys.argv[1], timeout=0).execute("PRAGMA journal_mode = DELETE").fetchone())
except sqlite3.OperationalError as error:
    print(error)
"""
