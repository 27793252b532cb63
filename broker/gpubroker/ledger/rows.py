"""Rows of the ledger to values, and values to rows."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpubroker.errors import ErrorKind, Scope
from gpubroker.model.leases import JobRow, LeaseRow, LeaseState, LedgerEvent
from gpubroker.model.money import Money
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.experience import Experience


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A broker that holds leases: which process on which host, and until when its word counts.

    `host` names the running system (it changes with each boot), `started` tells two processes
    with the same number apart.
    """

    id: str
    host: str
    pid: int
    started: str
    expires_at: float
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may be reserved and spent together, USD, by leases that it counts.

    It counts the leases of one request, or those made within the half-open interval
    [`since`, `until`) of Unix seconds.
    """

    name: str
    amount: Money
    request_id: str | None = None
    since: float | None = None
    until: float | None = None


def lease_from(row: sqlite3.Row) -> LeaseRow:
    """The lease that a row of ``leases`` describes."""
    values: dict[str, Any] = {key: row[key] for key in row.keys()}  # noqa: SIM118
    values["state"] = LeaseState(values["state"])
    for name in ("hourly", "reserved", "spent"):
        values[name] = Money.from_micros(values[name])
    values["tags"] = tuple(values["tags"].split("\n")) if values["tags"] else ()
    return LeaseRow(**values)


def lease_values(lease: LeaseRow) -> dict[str, Any]:
    """The columns of a new row of ``leases``."""
    values: dict[str, Any] = {name: getattr(lease, name) for name in LeaseRow.__slots__}
    values["state"] = str(lease.state)
    # Rates and reservations are rounded up: what is held must cover what can be billed.
    for name in ("hourly", "reserved", "spent"):
        values[name] = values[name].micros_up
    values["tags"] = "\n".join(lease.tags)
    return values


def job_from(row: sqlite3.Row) -> JobRow:
    """The job that a row of ``jobs`` describes."""
    values: dict[str, Any] = {key: row[key] for key in row.keys()}  # noqa: SIM118
    values["tags"] = tuple(values["tags"].split("\n")) if values["tags"] else ()
    return JobRow(**values)


def event_from(row: sqlite3.Row) -> LedgerEvent:
    """The event that a row of ``events`` describes."""
    values: dict[str, Any] = {key: row[key] for key in row.keys()}  # noqa: SIM118
    for name in ("source", "target"):
        values[name] = None if values[name] is None else LeaseState(values[name])
    return LedgerEvent(**values)


def owner_from(row: sqlite3.Row) -> Owner:
    """The owner that a row of ``owners`` describes."""
    return Owner(**{key: row[key] for key in row.keys()})  # noqa: SIM118


def values_of(value: Cooldown | Experience) -> dict[str, Any]:
    """The columns of a row of ``cooldowns`` or ``experience``, its key first."""
    names = list(type(value).__slots__)
    return {
        name: str(given) if isinstance(given := getattr(value, name), StrEnum) else given
        for name in names
    }


def cooldown_from(row: sqlite3.Row) -> Cooldown:
    """The cooldown that a row of ``cooldowns`` describes."""
    values: dict[str, Any] = {key: row[key] for key in row.keys()}  # noqa: SIM118
    values["scope"] = Scope(values["scope"])
    values["kind"] = ErrorKind(values["kind"])
    return Cooldown(**values)


def experience_from(row: sqlite3.Row) -> Experience:
    """What a row of ``experience`` says of a host."""
    return Experience(**{key: row[key] for key in row.keys()})  # noqa: SIM118
