"""Statements about pools and batches: leases that several processes share, and finished items."""

from __future__ import annotations

from typing import Final

from gpubroker.errors import LedgerError, StaleOwner
from gpubroker.ledger import edges
from gpubroker.ledger.sql import Sql, only
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.policy.pool import Use

#: Seconds from a machine's being ready within which the job starts that it was rented for.
_AT_ONCE: Final = 5.0


def jobs_running(sql: Sql, lease: LeaseRow) -> int:
    """How many jobs run on a lease."""
    query = "SELECT COUNT(*) AS jobs FROM jobs WHERE lease_id = :id AND ended_at IS NULL"
    return int(only(sql.execute(query, {"id": lease.id}))["jobs"])


def extend(sql: Sql, lease: LeaseRow, deadline: float, reserved: Money, at: float) -> LeaseRow:
    """Give a lease that was read in this very transaction more time, and the money for it."""
    edges.update(sql, lease, {"deadline": deadline, "reserved": reserved})
    result = edges.read(sql, lease.id)
    text = f"by {deadline - lease.deadline:.0f} s"
    edges.write_event(sql, result, at, "extended", None, None, text)
    return result


def park(sql: Sql, lease: LeaseRow, idle_until: float, at: float) -> LeaseRow:
    """Leave a lease for whoever shares its pool; one that is parked stays longer, or less long."""
    now = edges.current(sql, lease)
    text = f"for {max(0.0, idle_until - at):.0f} s"
    if now.state is not LeaseState.IDLE:
        return edges.move(sql, now, LeaseState.IDLE, at, "parked", text, {"idle_until": idle_until})
    edges.update(sql, now, {"idle_until": idle_until})
    edges.write_event(sql, now, at, "parked", None, None, text)
    return edges.read(sql, lease.id)


def take(sql: Sql, lease: LeaseRow, owner: str, at: float) -> LeaseRow:
    """Take a parked lease: one of all who try at the same time gets it.

    After its idle limit nobody does but its owner, who may give it up then without asking.
    """
    now = edges.current(sql, lease)
    if now.idle_until is None:
        raise StaleOwner(f"lease {lease.id} was taken by somebody quicker")
    if not now.parked:
        raise LedgerError(f"lease {lease.id} is to be given up")
    if now.owner != owner and now.idle_until <= at:
        raise LedgerError(f"lease {lease.id} has been idle for long enough")
    if now.owner == owner:
        edges.update(sql, now, {"idle_until": None})
        return edges.read(sql, lease.id)
    edges.update(sql, now, {"idle_until": None, "owner": owner, "epoch": now.epoch + 1})
    result = edges.read(sql, lease.id)
    edges.write_event(sql, result, at, "taken over", None, None, f"for pool {now.pool}")
    return result


def uses(sql: Sql, name: str, limit: int) -> list[Use]:
    """When the newest jobs of a pool were wanted and when they ended, by lease.

    One that started as soon as its machine was ready was what that machine was rented for.
    """
    rows = sql.execute(
        "SELECT jobs.lease_id, jobs.ended_at,"
        " CASE WHEN started_at < ready_at + :at_once THEN created_at ELSE started_at END AS began"
        " FROM jobs JOIN leases ON leases.id = jobs.lease_id"
        # Of the newest leases alone: all that ever were would be put in order for a few.
        " WHERE lease_id IN (SELECT id FROM leases WHERE pool = :pool AND pool <> ''"
        " ORDER BY created_at DESC LIMIT :limit)"
        " ORDER BY started_at DESC, jobs.id LIMIT :limit",
        {"pool": name, "limit": limit, "at_once": _AT_ONCE},
    )
    found = [Use(row["lease_id"], row["began"], row["ended_at"]) for row in rows]
    return found[::-1]


def cold_starts(sql: Sql, name: str, limit: int) -> list[float]:
    """Seconds from the request for a machine until it was set up."""
    rows = sql.execute(
        "SELECT ready_at - created_at AS seconds FROM leases"
        # Its name is not empty: the index of pools is of no use unless that is said.
        " WHERE pool = :pool AND pool <> '' AND ready_at IS NOT NULL"
        " ORDER BY created_at DESC, id LIMIT :limit",
        {"pool": name, "limit": limit},
    )
    return [float(row["seconds"]) for row in rows]


def put_wait(sql: Sql, name: str, owner: str, since: float, until: float) -> None:
    """Note since when an owner waits."""
    sql.execute(
        "INSERT INTO pool_waits (pool, owner, since, until) VALUES (:pool, :owner, :since, :until)"
        " ON CONFLICT (pool, owner) DO UPDATE SET since = excluded.since, until = excluded.until",
        {"pool": name, "owner": owner, "since": since, "until": until},
    )


def waits(sql: Sql, name: str, owner: str, host: str, now: float) -> list[float]:
    """Since when others of a host wait whose word counts."""
    rows = sql.execute(
        "SELECT since FROM pool_waits WHERE pool = :pool AND owner <> :owner AND until > :now"
        " AND owner IN (SELECT id FROM owners WHERE host = :host)",
        {"pool": name, "owner": owner, "now": now, "host": host},
    )
    return [float(row["since"]) for row in rows]


def jobs_cost(sql: Sql, lease_id: str) -> Money:
    """USD that a lease's jobs have cost, together."""
    query = "SELECT COALESCE(SUM(cost), 0) AS total FROM jobs WHERE lease_id = :id"
    return Money.from_micros(int(only(sql.execute(query, {"id": lease_id}))["total"]))


def put_item(sql: Sql, batch: str, item: str, result: str, at: float) -> None:
    """Note a finished item, in place of what was noted of it before."""
    sql.execute(
        "INSERT INTO batch_items (batch, item, at, result) VALUES (:batch, :item, :at, :result)"
        " ON CONFLICT (batch, item) DO UPDATE SET at = excluded.at, result = excluded.result",
        {"batch": batch, "item": item, "at": at, "result": result},
    )


def items(sql: Sql, batch: str) -> dict[str, str]:
    """The finished items of a batch."""
    rows = sql.execute(
        "SELECT item, result FROM batch_items WHERE batch = :batch", {"batch": batch}
    )
    return {row["item"]: row["result"] for row in rows}
