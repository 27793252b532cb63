"""Tables, as a list of migrations: plain functions, applied once each, in order, atomically.

Types are those that both engines know: SQLite takes ``BIGINT`` for its INTEGER and ``DOUBLE
PRECISION`` for its REAL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpubroker.errors import LedgerUnusable
from gpubroker.ledger.sql import Sql


def _m001_first(connection: Sql) -> None:
    for statement in _FIRST:
        connection.execute(statement.replace("{counting}", connection.counting))


_FIRST: Final = (
    # Text by name: the ledger's own id, and when each provider was last swept completely.
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # Brokers that hold leases. One whose row has expired, or whose process is gone, holds nothing.
    """CREATE TABLE owners (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, pid BIGINT NOT NULL, started TEXT NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL, closed_at DOUBLE PRECISION)""",
    # One row per request for a machine: what was seen, chosen and tried.
    """CREATE TABLE requests (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE leases (
        id TEXT PRIMARY KEY, request_id TEXT NOT NULL, provider TEXT NOT NULL,
        state TEXT NOT NULL, epoch BIGINT NOT NULL, owner TEXT NOT NULL,
        mark TEXT NOT NULL UNIQUE, title TEXT NOT NULL, offer_id TEXT NOT NULL, machine_id TEXT,
        hourly BIGINT NOT NULL, quantum DOUBLE PRECISION NOT NULL,
        reserved BIGINT NOT NULL, spent BIGINT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, deadline DOUBLE PRECISION NOT NULL, accepted_at DOUBLE PRECISION, ready_at DOUBLE PRECISION,
        release_requested_at DOUBLE PRECISION, release_reason TEXT NOT NULL DEFAULT '',
        acknowledged_at DOUBLE PRECISION, suspected_at DOUBLE PRECISION, ended_at DOUBLE PRECISION,
        problem TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '',
        CHECK (reserved >= 0 AND spent >= 0))""",
    "CREATE INDEX leases_open ON leases (provider) WHERE state NOT IN ('released', 'refused')",
    "CREATE INDEX leases_by_time ON leases (created_at)",
    "CREATE INDEX leases_by_request ON leases (request_id)",
    """CREATE TABLE events (
        number {counting}, lease_id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
        epoch BIGINT NOT NULL, kind TEXT NOT NULL, source TEXT, target TEXT,
        detail TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX events_by_lease ON events (lease_id)",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY, lease_id TEXT NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL,
        exit_code BIGINT, started_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION, tags TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX jobs_by_lease ON jobs (lease_id)",
)


def _m002_memory(connection: Sql) -> None:
    """What is left alone for a while, and what was seen of hosts."""
    connection.execute(
        """CREATE TABLE cooldowns (
        provider TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,
        reason TEXT NOT NULL, failures BIGINT NOT NULL, since DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (provider, scope, key))"""
    )
    connection.execute(
        """CREATE TABLE experience (
        provider TEXT NOT NULL, host TEXT NOT NULL, image TEXT NOT NULL, tries DOUBLE PRECISION NOT NULL,
        successes DOUBLE PRECISION NOT NULL, boot_seconds DOUBLE PRECISION NOT NULL, setups DOUBLE PRECISION NOT NULL,
        setup_seconds DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL, PRIMARY KEY (provider, host, image))"""
    )


def _m003_settlement(connection: Sql) -> None:
    """When what the vendor billed was put on record."""
    connection.execute("ALTER TABLE leases ADD COLUMN settled_at DOUBLE PRECISION")
    connection.execute(
        "CREATE INDEX leases_unsettled ON leases (provider, ended_at)"
        " WHERE state = 'released' AND settled_at IS NULL"
    )


def _m004_budgets(connection: Sql) -> None:
    """Limits by tag, alerts told, bills compared with what was counted, and what each job cost."""
    connection.execute(
        """CREATE TABLE lease_tags (
        tag TEXT NOT NULL, lease_id TEXT NOT NULL, PRIMARY KEY (tag, lease_id))"""
    )
    tagged = list(connection.execute("SELECT id, tags FROM leases WHERE tags <> ''"))
    for row in tagged:
        for tag in dict.fromkeys(row["tags"].split("\n")):
            connection.execute(
                "INSERT INTO lease_tags (tag, lease_id) VALUES (:tag, :lease)",
                {"tag": tag, "lease": row["id"]},
            )
    # By a name that says of which limit, window and fraction somebody was told.
    connection.execute("CREATE TABLE alerts (name TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL)")
    connection.execute("ALTER TABLE leases ADD COLUMN counted BIGINT")
    connection.execute("ALTER TABLE leases ADD COLUMN drain_reason TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE jobs ADD COLUMN cost BIGINT NOT NULL DEFAULT 0")


def _m005_on_owner_death(connection: Sql) -> None:
    """What becomes of a lease whose broker has died; and a column that nothing ever used."""
    connection.execute(
        "ALTER TABLE leases ADD COLUMN on_owner_death TEXT NOT NULL DEFAULT 'release'"
    )
    connection.execute("ALTER TABLE leases DROP COLUMN suspected_at")


def _m006_pools(connection: Sql) -> None:
    """Leases that several processes share; who waits for one; and what of a batch is finished."""
    connection.execute("ALTER TABLE leases ADD COLUMN pool TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE leases ADD COLUMN idle_until DOUBLE PRECISION")
    connection.execute("CREATE INDEX leases_by_pool ON leases (pool, created_at) WHERE pool <> ''")
    connection.execute(
        """CREATE TABLE pool_waits (
        pool TEXT NOT NULL, owner TEXT NOT NULL, since DOUBLE PRECISION NOT NULL,
        until DOUBLE PRECISION NOT NULL, PRIMARY KEY (pool, owner))"""
    )
    connection.execute(
        """CREATE TABLE batch_items (
        batch TEXT NOT NULL, item TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
        result TEXT NOT NULL, PRIMARY KEY (batch, item))"""
    )


MIGRATIONS: Final[tuple[Callable[[Sql], None], ...]] = (
    _m001_first,
    _m002_memory,
    _m003_settlement,
    _m004_budgets,
    _m005_on_owner_death,
    _m006_pools,
)


def is_current(sql: Sql) -> bool:
    """Whether the tables are those of this version, so that nothing has to be written."""
    return sql.version() == len(MIGRATIONS)


def migrate(sql: Sql) -> None:
    """Bring the tables up to this version. Called inside a transaction.

    Raises:
        LedgerUnusable: a newer gpubroker wrote this ledger.
    """
    version = sql.version()
    if version > len(MIGRATIONS):
        raise LedgerUnusable(
            f"the ledger is of version {version}, newer than this gpubroker's {len(MIGRATIONS)}:"
            " update gpubroker here"
        )
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        sql.set_version(number)  # first: where there is nothing yet, it makes room for the tables
        migration(sql)
