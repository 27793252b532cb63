"""What was spent, read from the ledger in one look."""

from __future__ import annotations

from typing import Any

from gpubroker.ledger import spending
from gpubroker.ledger.rows import lease_from
from gpubroker.ledger.sql import Sql
from gpubroker.model.costs import Costs, CostsBy, LimitLine, MachinesLine
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import ZERO, Money
from gpubroker.policy.budget import Budget, Usage, machine_limits, standing_limits
from gpubroker.policy.costs import JobCost, cost_lines, held
from gpubroker.policy.pricing import cost_so_far


def costs(
    sql: Sql,
    by: CostsBy,
    budget: Budget,
    since: float | None,
    until: float | None,
    now: float,
) -> Costs:
    """What the leases asked for within [`since`, `until`) have cost, and how full limits are."""
    values = {"since": since, "until": until}
    given = {name: value for name, value in values.items() if value is not None}
    bounds = {"since": "leases.created_at >= :since", "until": "leases.created_at < :until"}
    where = " AND ".join(["leases.state <> 'refused'", *(bounds[name] for name in given)])
    leases = _leases(sql, where, given)
    jobs = _jobs(sql, where, given) if by == "job" else {}
    limits = standing_limits(budget, now, budget.provider, budget.tag)
    usages = spending.usages(sql, limits, spending.open_leases(sql), now)
    places = machine_limits(budget, budget.provider, budget.tag)
    return Costs(
        by=by,
        at=now,
        since=since,
        until=until,
        lines=tuple(cost_lines(by, leases, jobs, now, budget.timezone)),
        spent=sum((cost_so_far(lease, now) for lease in leases), ZERO),
        reserved=sum((held(lease, now) for lease in leases), ZERO),
        limits=tuple(_limit_line(usage) for usage in usages),
        machines=tuple(
            MachinesLine(name=limit.name, machines=limit.machines, held=count)
            for limit, count in spending.machines_held(sql, places)
        ),
    )


def _limit_line(usage: Usage) -> LimitLine:
    reserved = max(ZERO, usage.committed - usage.spent, key=lambda money: money.amount)
    return LimitLine(
        name=usage.limit.name, amount=usage.limit.amount, spent=usage.spent, reserved=reserved
    )


def _leases(sql: Sql, where: str, values: dict[str, Any]) -> list[LeaseRow]:
    query = f"SELECT * FROM leases WHERE {where} ORDER BY created_at, id"  # noqa: S608
    return [lease_from(row) for row in sql.execute(query, values)]


def _jobs(sql: Sql, where: str, values: dict[str, Any]) -> dict[str, list[JobCost]]:
    """The jobs of each lease, in the order in which they ran."""
    found: dict[str, list[JobCost]] = {}
    query = (
        "SELECT jobs.id AS id, jobs.lease_id AS lease_id, jobs.title AS title, jobs.cost AS cost"  # noqa: S608
        f" FROM jobs JOIN leases ON leases.id = jobs.lease_id WHERE {where}"
        " ORDER BY jobs.started_at, jobs.id"
    )
    for row in sql.execute(query, values):
        cost = Money.from_micros(int(row["cost"]))
        found.setdefault(row["lease_id"], []).append(JobCost(row["id"], row["title"], cost))
    return found
