"""Ledgers taken back to an earlier version, with what they hold: each migration undone in turn."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from gpubroker.ledger.schema import MIGRATIONS

#: By version: the statements that undo the migration to it.
_UNDO: Final = {
    6: (
        "DROP TABLE batch_items",
        "DROP TABLE pool_waits",
        "DROP INDEX leases_by_pool",
        "ALTER TABLE leases DROP COLUMN idle_until",
        "ALTER TABLE leases DROP COLUMN pool",
    ),
    5: (
        "ALTER TABLE leases ADD COLUMN suspected_at DOUBLE PRECISION",
        "ALTER TABLE leases DROP COLUMN on_owner_death",
    ),
    4: (
        "DROP TABLE lease_tags",
        "DROP TABLE alerts",
        "ALTER TABLE leases DROP COLUMN counted",
        "ALTER TABLE leases DROP COLUMN drain_reason",
        "ALTER TABLE jobs DROP COLUMN cost",
    ),
    3: ("DROP INDEX leases_unsettled", "ALTER TABLE leases DROP COLUMN settled_at"),
    2: ("DROP TABLE cooldowns", "DROP TABLE experience"),
}


def take_back(path: Path, version: int) -> None:
    """Make a SQLite ledger of this version one of an earlier one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for number in range(len(MIGRATIONS), version, -1):
            for statement in _UNDO[number]:
                sql.execute(statement)
        sql.execute(f"PRAGMA user_version = {version}")
