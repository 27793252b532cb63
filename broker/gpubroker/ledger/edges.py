"""Statements about one lease: each is conditional on its epoch and state, and leaves an event."""

from __future__ import annotations

from typing import Any, Final

from gpubroker.errors import LedgerError, StaleOwner
from gpubroker.ledger import spending
from gpubroker.ledger.rows import lease_from, lease_values
from gpubroker.ledger.sql import Sql
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.policy.transitions import USED, allowed

#: Characters kept of a text that may come from a vendor.
_LONGEST: Final = 2000


def insert(sql: Sql, lease: LeaseRow) -> None:
    """Write a new lease, and its tags where limits find them."""
    values = lease_values(lease)
    names = ", ".join(values)
    sql.execute(
        f"INSERT INTO leases ({names}) VALUES ({', '.join(':' + n for n in values)})",  # noqa: S608
        values,
    )
    spending.put_tags(sql, lease)


def read(sql: Sql, lease_id: str) -> LeaseRow:
    """The lease with this id, which must be there."""
    row = sql.execute("SELECT * FROM leases WHERE id = :id", {"id": lease_id}).fetchone()
    if row is None:
        raise LedgerError(f"there is no lease {lease_id}")
    return lease_from(row)


def current(sql: Sql, lease: LeaseRow) -> LeaseRow:
    """The lease as it is now, if it has not changed hands since `lease` was read."""
    now = read(sql, lease.id)
    if now.epoch != lease.epoch:
        raise StaleOwner(f"lease {lease.id} was taken over by another process")
    return now


def move(
    sql: Sql,
    lease: LeaseRow,
    target: LeaseState,
    at: float,
    kind: str,
    detail: str,
    columns: dict[str, Any],
) -> LeaseRow:
    """Take one edge of the state table, and set `columns` with it."""
    now = current(sql, lease)
    if not allowed(now.state, target):
        raise LedgerError(f"lease {lease.id} is {now.state}; it cannot become {target}")
    if target in USED and now.release_requested_at is not None:
        raise LedgerError(f"lease {lease.id} cannot become {target}: its release was asked for")
    result = update(sql, now, {**columns, "state": str(target)})
    write_event(sql, result, at, kind, now.state, target, detail)
    return result


def update(sql: Sql, lease: LeaseRow, columns: dict[str, Any]) -> LeaseRow:
    """Set `columns` of a lease that was read in this very transaction, and return it as it is now."""
    if not columns:
        return lease
    values = {name: stored(value) for name, value in columns.items()}
    changed = list(
        sql.execute(
            f"UPDATE leases SET {', '.join(f'{n} = :{n}' for n in values)}"  # noqa: S608
            " WHERE id = :_id AND epoch = :_epoch AND state = :_state RETURNING *",
            {**values, "_id": lease.id, "_epoch": lease.epoch, "_state": str(lease.state)},
        )
    )
    assert len(changed) == 1, "the row was read in this very transaction"
    return lease_from(changed[0])


def stored(value: Any) -> Any:
    """A column as it is written: whole micro-dollars, and no text without end."""
    if isinstance(value, Money):
        return value.micros_up
    return value[:_LONGEST] if isinstance(value, str) else value


def write_event(
    sql: Sql,
    lease: LeaseRow,
    at: float,
    kind: str,
    source: LeaseState | None,
    target: LeaseState | None,
    detail: str,
) -> None:
    """Write what happened to a lease; with a `target`, the edge that was taken."""
    sql.execute(
        "INSERT INTO events (lease_id, at, epoch, kind, source, target, detail)"
        " VALUES (:lease, :at, :epoch, :kind, :source, :target, :detail)",
        {
            "lease": lease.id,
            "at": at,
            "epoch": lease.epoch,
            "kind": kind,
            "source": source and str(source),
            "target": target and str(target),
            "detail": detail[:_LONGEST],
        },
    )
