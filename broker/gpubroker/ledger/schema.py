"""Tables, as a list of migrations: plain functions, applied once each, in order, atomically."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from gpubroker.errors import LedgerUnusable


def _m001_first(connection: sqlite3.Connection) -> None:
    for statement in _FIRST:
        connection.execute(statement)


_FIRST: Final = (
    # Text by name: the ledger's own id, and when each provider was last swept completely.
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # Brokers that hold leases. One whose row has expired, or whose process is gone, holds nothing.
    """CREATE TABLE owners (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
        expires_at REAL NOT NULL, closed_at REAL)""",
    # One row per request for a machine: what was seen, chosen and tried.
    """CREATE TABLE requests (
        id TEXT PRIMARY KEY, at REAL NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE leases (
        id TEXT PRIMARY KEY, request_id TEXT NOT NULL, provider TEXT NOT NULL,
        state TEXT NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
        mark TEXT NOT NULL UNIQUE, title TEXT NOT NULL, offer_id TEXT NOT NULL, machine_id TEXT,
        hourly INTEGER NOT NULL, quantum REAL NOT NULL,
        reserved INTEGER NOT NULL, spent INTEGER NOT NULL,
        created_at REAL NOT NULL, deadline REAL NOT NULL, accepted_at REAL, ready_at REAL,
        release_requested_at REAL, release_reason TEXT NOT NULL DEFAULT '',
        acknowledged_at REAL, suspected_at REAL, ended_at REAL,
        problem TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '',
        CHECK (reserved >= 0 AND spent >= 0))""",
    "CREATE INDEX leases_open ON leases (provider) WHERE state NOT IN ('released', 'refused')",
    "CREATE INDEX leases_by_time ON leases (created_at)",
    "CREATE INDEX leases_by_request ON leases (request_id)",
    """CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT, lease_id TEXT NOT NULL, at REAL NOT NULL,
        epoch INTEGER NOT NULL, kind TEXT NOT NULL, source TEXT, target TEXT,
        detail TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX events_by_lease ON events (lease_id)",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY, lease_id TEXT NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL,
        exit_code INTEGER, started_at REAL NOT NULL, ended_at REAL, tags TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX jobs_by_lease ON jobs (lease_id)",
)


def _m002_memory(connection: sqlite3.Connection) -> None:
    """What is left alone for a while, and what was seen of hosts."""
    connection.execute(
        """CREATE TABLE cooldowns (
        provider TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,
        reason TEXT NOT NULL, failures INTEGER NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
        PRIMARY KEY (provider, scope, key))"""
    )
    connection.execute(
        """CREATE TABLE experience (
        provider TEXT NOT NULL, host TEXT NOT NULL, image TEXT NOT NULL, tries REAL NOT NULL,
        successes REAL NOT NULL, boot_seconds REAL NOT NULL, setups REAL NOT NULL,
        setup_seconds REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (provider, host, image))"""
    )


def _m003_settlement(connection: sqlite3.Connection) -> None:
    """When what the vendor billed was put on record."""
    connection.execute("ALTER TABLE leases ADD COLUMN settled_at REAL")
    connection.execute(
        "CREATE INDEX leases_unsettled ON leases (provider, ended_at)"
        " WHERE state = 'released' AND settled_at IS NULL"
    )


def _m005_on_owner_death(connection: sqlite3.Connection) -> None:
    """What becomes of a lease whose broker has died; and a column that nothing ever used."""
    connection.execute(
        "ALTER TABLE leases ADD COLUMN on_owner_death TEXT NOT NULL DEFAULT 'release'"
    )
    connection.execute("ALTER TABLE leases DROP COLUMN suspected_at")


MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (
    _m001_first,
    _m002_memory,
    _m003_settlement,
    _m005_on_owner_death,
)


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the tables are those of this version, so that nothing has to be written."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version == len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to this version. Called inside a transaction.

    Raises:
        LedgerUnusable: a newer gpubroker wrote this ledger.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LedgerUnusable(
            f"the ledger is of version {version}, newer than this gpubroker's {len(MIGRATIONS)}"
        )
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        migration(connection)
        connection.execute(f"PRAGMA user_version = {number}")
