"""What the ledger remembers of failures and hosts, across requests and processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, LedgerBusy, Scope
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.schema import MIGRATIONS
from gpubroker.model.decisions import DecisionRecord
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.experience import Experience

from .conftest import ENTROPY, NewLease, both_engines

RECORD: Final = DecisionRecord(id="request-1", wanted="A100", asked_at=1000.0)
COOLDOWN: Final = Cooldown(
    provider="acme",
    scope=Scope.HOST,
    key="h1",
    kind=ErrorKind.HOST_BROKEN,
    reason="never booted",
    failures=2,
    since=1000.25,
    until=8200.5,
)
SEEN: Final = Experience(
    provider="acme",
    host="h1",
    image="img",
    tries=3.5,
    successes=2.25,
    boot_seconds=140.125,
    setups=1.5,
    setup_seconds=90.0,
    at=1000.75,
)

text = st.text(st.characters(codec="utf-8"), max_size=9)
amounts = st.floats(0, 1e12)
cooldowns = st.builds(
    Cooldown,
    provider=text,
    scope=st.sampled_from(Scope),
    key=text,
    kind=st.sampled_from(ErrorKind),
    reason=text,
    failures=st.integers(0, 10**6),
    since=amounts,
    until=amounts,
)
experiences = st.builds(
    Experience,
    provider=text,
    host=text,
    image=text,
    tries=amounts,
    successes=amounts,
    boot_seconds=amounts,
    setups=amounts,
    setup_seconds=amounts,
    at=amounts,
)


@both_engines
def test_what_was_learnt_is_known_to_every_process(open_ledger: Callable[[], Ledger]) -> None:
    """It is read back unchanged, by whoever opens the file, then and later."""
    first, second = open_ledger(), open_ledger()
    first.put_record(RECORD, [COOLDOWN], [SEEN])
    first.close()

    assert second.memory() == ([COOLDOWN], [SEEN])
    assert open_ledger().memory() == ([COOLDOWN], [SEEN])
    assert second.record("request-1") == RECORD


@both_engines
def test_a_new_ledger_remembers_nothing(ledger: Ledger) -> None:
    """And a record that has learnt nothing adds nothing."""
    assert ledger.memory() == ([], [])

    ledger.put_record(RECORD)

    assert ledger.memory() == ([], [])


@both_engines
def test_a_newer_row_takes_the_place_of_the_older(ledger: Ledger) -> None:
    """One cooldown per thing and one row per host and image: memory does not grow with failures."""
    newer = replace(COOLDOWN, kind=ErrorKind.CAPACITY, failures=3, since=9000.0, until=9060.0)
    more = SEEN.worked(33.0, 2000.0)
    ledger.put_record(RECORD, [COOLDOWN], [SEEN])

    ledger.put_record(replace(RECORD, id="request-2"), [newer], [more])

    assert ledger.memory() == ([newer], [more])


@both_engines
def test_each_thing_has_a_row_of_its_own(ledger: Ledger) -> None:
    """Another provider, scope or key; another provider, host or image."""
    cooled = [
        COOLDOWN,
        replace(COOLDOWN, provider="other"),
        replace(COOLDOWN, scope=Scope.OFFER),
        replace(COOLDOWN, key="h2"),
    ]
    seen = [
        SEEN,
        replace(SEEN, provider="other"),
        replace(SEEN, host="h2"),
        replace(SEEN, image=""),
    ]

    ledger.put_record(RECORD, cooled, seen)

    found_cooled, found_seen = ledger.memory()
    assert sorted(map(repr, found_cooled)) == sorted(map(repr, cooled))
    assert sorted(map(repr, found_seen)) == sorted(map(repr, seen))


def test_the_record_and_what_was_learnt_are_written_together_or_not_at_all(
    ledger: Ledger, path: Path
) -> None:
    """One transaction: a crash leaves neither half."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with closing(other), pytest.raises(LedgerBusy):
        ledger.put_record(RECORD, [COOLDOWN], [SEEN])

    assert ledger.memory() == ([], [])
    assert ledger.record("request-1") is None


@settings(deadline=None, max_examples=50)
@given(st.lists(cooldowns, max_size=4), st.lists(experiences, max_size=4))
def test_anything_that_can_be_learnt_comes_back_unchanged(
    cooled: list[Cooldown], seen: list[Experience]
) -> None:
    """Every scope, kind and count; of two of the same thing the last one counts."""
    with closing(Ledger(None, entropy=ENTROPY)) as ledger:
        ledger.put_record(RECORD, cooled, seen)
        found_cooled, found_seen = ledger.memory()

    last_cooled = {(c.provider, c.scope, c.key): c for c in cooled}
    last_seen = {(e.provider, e.host, e.image): e for e in seen}
    assert {(c.provider, c.scope, c.key): c for c in found_cooled} == last_cooled
    assert {(e.provider, e.host, e.image): e for e in found_seen} == last_seen
    assert (len(found_cooled), len(found_seen)) == (len(last_cooled), len(last_seen))


#: Undoes every migration but the first.
_BACK_TO_FIRST = (
    "DROP INDEX leases_by_pool",
    "DROP TABLE pool_waits",
    "DROP TABLE batch_items",
    "ALTER TABLE leases DROP COLUMN pool",
    "ALTER TABLE leases DROP COLUMN idle_until",
    "ALTER TABLE leases DROP COLUMN on_owner_death",
    "ALTER TABLE leases ADD COLUMN suspected_at REAL",
    "DROP INDEX leases_unsettled",
    "ALTER TABLE leases DROP COLUMN settled_at",
    "DROP TABLE cooldowns",
    "DROP TABLE experience",
    "DROP TABLE lease_tags",
    "DROP TABLE alerts",
    "ALTER TABLE leases DROP COLUMN counted",
    "ALTER TABLE leases DROP COLUMN drain_reason",
    "ALTER TABLE jobs DROP COLUMN cost",
    "PRAGMA user_version = 1",
)


class TestMigration:
    @pytest.fixture
    def first_version(self, path: Path, new_lease: NewLease) -> str:
        """A ledger as version 1 wrote it, with a lease and a record; its id."""
        with closing(Ledger(path, entropy=ENTROPY)) as ledger:
            ledger.reserve(new_lease(), [])
            ledger.put_record(RECORD)
            ledger.put_swept("acme", 1234.5)
        with closing(sqlite3.connect(path, isolation_level=None)) as sql:
            for statement in _BACK_TO_FIRST:
                sql.execute(statement)
        return ledger.id

    def test_a_ledger_of_the_first_version_keeps_everything(
        self, first_version: str, path: Path, open_ledger: Callable[[], Ledger], new_lease: NewLease
    ) -> None:
        """Leases, their events, records and the id of its marks: nothing that bills is lost."""
        with closing(sqlite3.connect(path)) as sql:
            assert sql.execute("PRAGMA user_version").fetchone() == (1,)

        ledger = open_ledger()

        (lease,) = ledger.leases()
        assert ledger.id == first_version
        assert lease == replace(
            new_lease(), id=lease.id, mark=lease.mark
        )  # all but what is counted up
        assert [event.kind for event in ledger.events(lease.id)] == ["intent"]
        assert ledger.record("request-1") == RECORD
        assert ledger.swept() == {"acme": 1234.5}
        assert ledger.memory() == ([], [])

    def test_it_is_of_the_new_version_from_then_on(
        self, first_version: str, path: Path, open_ledger: Callable[[], Ledger]
    ) -> None:
        """And can keep what is learnt; opening it again changes nothing."""
        open_ledger().put_record(RECORD, [COOLDOWN], [SEEN])

        assert open_ledger().memory() == ([COOLDOWN], [SEEN])
        with closing(sqlite3.connect(path)) as sql:
            assert sql.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
