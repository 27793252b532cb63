"""Statements about money: what limits allow, how full they are, what was billed, who was told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from gpubroker.ledger.rows import lease_from
from gpubroker.ledger.sql import Sql, only
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import Money
from gpubroker.policy.budget import Limit, MachineLimit, Usage, usage

_OPEN: Final = "state NOT IN ('released', 'refused')"
#: What closed leases have cost; what all have, and hold.
_SETTLED: Final = "CASE WHEN state IN ('released', 'refused') THEN spent ELSE 0 END"
_COMMITTED: Final = "reserved + spent"
_TAGGED: Final = "id IN (SELECT lease_id FROM lease_tags WHERE tag = :tag)"

#: What each bound of a limit means. What is not said bounds nothing: a limit must never count
#: nothing by mistake.
_BOUNDS: Final = {
    "request_id": "request_id = :request_id",
    "since": "created_at >= :since",
    "until": "created_at < :until",
    "lease_id": "id = :lease_id",
    "provider": "provider = :provider",
    "tag": _TAGGED,
}


def exceeded(sql: Sql, limits: Iterable[Limit], asked: Money) -> tuple[Limit, Money] | None:
    """The first limit that does not allow `asked` more, and what is taken of it already."""
    for limit in limits:
        taken = committed(sql, limit)
        if taken + asked > limit.amount:
            return limit, taken
    return None


def full(sql: Sql, limits: Iterable[MachineLimit]) -> tuple[MachineLimit, int] | None:
    """The first limit that does not allow one more machine, and how many are held."""
    counted = machines_held(sql, limits)
    return next(((limit, held) for limit, held in counted if held >= limit.machines), None)


def put_tags(sql: Sql, lease: LeaseRow) -> None:
    """Write the tags of a new lease where limits find them."""
    for tag in dict.fromkeys(lease.tags):
        sql.execute(
            "INSERT INTO lease_tags (tag, lease_id) VALUES (:tag, :lease)",
            {"tag": tag, "lease": lease.id},
        )


def committed(sql: Sql, limit: Limit) -> Money:
    """What is reserved and spent, together, by the leases that `limit` counts."""
    return _sums(sql, limit)[1]


def usages(
    sql: Sql, limits: Iterable[Limit], running: Sequence[LeaseRow], now: float
) -> list[Usage]:
    """How full each limit is, given every open lease."""
    # Each open lease may bring limits of its own: not each of them is to look at every lease.
    of_request: dict[str, list[LeaseRow]] = {}
    for lease in running:
        of_request.setdefault(lease.request_id, []).append(lease)
    of_lease = {lease.id: [lease] for lease in running}
    found: list[Usage] = []
    for limit in limits:
        counted: Sequence[LeaseRow]
        if limit.lease_id is not None:
            counted = of_lease.get(limit.lease_id, [])
        elif limit.request_id is not None:
            counted = of_request.get(limit.request_id, [])
        else:
            counted = running
        settled, taken = _sums(sql, limit)
        found.append(usage(limit, settled, taken, counted, now))
    return found


def open_leases(
    sql: Sql, *, provider: str | None = None, pool: str | None = None
) -> list[LeaseRow]:
    """Every open lease, or those of one provider or pool; the newest first."""
    given = {"provider": provider, "pool": pool}
    values = {name: value for name, value in given.items() if value is not None}
    where = " AND ".join([_OPEN, *(f"{name} = :{name}" for name in values)])
    # They are few, and put in order here: SQLite would walk through all that ever were for it.
    rows = sql.execute(f"SELECT * FROM leases WHERE {where}", values)  # noqa: S608
    return sorted((lease_from(row) for row in rows), key=lambda row: (-row.created_at, row.id))


def machines_held(sql: Sql, limits: Iterable[MachineLimit]) -> list[tuple[MachineLimit, int]]:
    """How many machines are held of each limit's."""
    return [(limit, _machines(sql, limit)) for limit in limits]


def claim_alerts(sql: Sql, names: Iterable[str], at: float) -> set[str]:
    """Those of `names` that nobody has told of yet; from now on somebody has."""
    return {
        name
        for name in names
        if sql.execute(
            "INSERT INTO alerts (name, at) VALUES (:name, :at) ON CONFLICT (name) DO NOTHING",
            {"name": name, "at": at},
        ).rowcount
        == 1
    }


def unclaim_alert(sql: Sql, name: str) -> None:
    """Nobody could be told: whoever comes next is to tell."""
    sql.execute("DELETE FROM alerts WHERE name = :name", {"name": name})


def billed(sql: Sql, provider: str, since: float) -> tuple[Money, Money]:
    """What was counted and what was billed, USD, for leases settled from `since` on."""
    given = sql.execute(
        "SELECT COALESCE(SUM(counted), 0) AS counted, COALESCE(SUM(spent), 0) AS billed FROM leases"
        " WHERE provider = :provider AND settled_at >= :since AND counted IS NOT NULL",
        {"provider": provider, "since": since},
    )
    row = only(given)
    return Money.from_micros(int(row["counted"])), Money.from_micros(int(row["billed"]))


def _sums(sql: Sql, limit: Limit) -> tuple[Money, Money]:
    """What is settled, and what is committed, of the leases that `limit` counts."""
    values: dict[str, Any] = {name: getattr(limit, name) for name in _BOUNDS}
    clauses = [clause for name, clause in _BOUNDS.items() if values[name] is not None]
    where = " AND ".join(clauses) or "TRUE"
    query = (
        f"SELECT COALESCE(SUM({_SETTLED}), 0) AS settled,"  # noqa: S608
        f" COALESCE(SUM({_COMMITTED}), 0) AS committed FROM leases WHERE {where}"
    )
    used = {name: value for name, value in values.items() if value is not None}
    row = only(sql.execute(query, used))
    return Money.from_micros(int(row["settled"])), Money.from_micros(int(row["committed"]))


def _machines(sql: Sql, limit: MachineLimit) -> int:
    # One that is only watched for was never seen; one whose destroy was acknowledged is as good as
    # gone. One that cannot be released is neither.
    clauses = [_OPEN, "state <> 'late watch'", "acknowledged_at IS NULL"]
    values: dict[str, Any] = {}
    if limit.provider is not None:
        clauses.append("provider = :provider")
        values["provider"] = limit.provider
    if limit.tag is not None:
        clauses.append(_TAGGED)
        values["tag"] = limit.tag
    if limit.pool is not None:
        clauses.append("pool = :pool")
        values["pool"] = limit.pool
    query = f"SELECT COUNT(*) AS held FROM leases WHERE {' AND '.join(clauses)}"  # noqa: S608
    return int(only(sql.execute(query, values))["held"])
