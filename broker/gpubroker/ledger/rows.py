"""Rows of the ledger to values, and values to rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from types import NoneType
from typing import Any, Final, TypeVar

from gpubroker.errors import ErrorKind, LedgerUnusable, Scope
from gpubroker.ledger.sql import Row
from gpubroker.model.leases import JobRow, LeaseRow, LeaseState, LedgerEvent
from gpubroker.model.money import Money
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.experience import Experience

T = TypeVar("T")

#: Columns of a lease with micro-dollars in them.
_MONEY: Final = ("hourly", "reserved", "spent", "counted")


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


#: By its annotation, what a field is stored as. Fields of other types are not looked at here.
_STORED: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "Money": (int,),
    "Money | None": (int, NoneType),
    "str | None": (str, NoneType),
    "float | None": (int, float, NoneType),
    "int | None": (int, NoneType),
}


#: The columns that each kind of row has fields for, and what each column is stored as.
_COLUMNS: Final[dict[type[Any], tuple[tuple[str, tuple[type, ...]], ...]]] = {
    kind: tuple(
        (name, _STORED.get(kind.__annotations__[name], (object,))) for name in kind.__slots__
    )
    for kind in (LeaseRow, JobRow, LedgerEvent, Owner, Cooldown, Experience)
}


def _fields(kind: type[Any], row: Row) -> dict[str, Any]:
    """The columns that `kind` has fields for: a newer gpubroker may have added others."""
    values: dict[str, Any] = {}
    for name, stored in _COLUMNS[kind]:
        value = values[name] = row[name]
        if not isinstance(value, stored):
            raise TypeError(f"{name} is {value!r}")
    return values


def _checked(read: Callable[[Row], T]) -> Callable[[Row], T]:
    """What is wrong with a row is damage of the ledger's, not a mistake of whoever reads it."""

    @wraps(read)
    def checked(row: Row) -> T:
        try:
            return read(row)
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerUnusable(
                f"the ledger is damaged: a row makes no sense ({error}); see `gpubroker verify`"
            ) from error

    return checked


@_checked
def lease_from(row: Row) -> LeaseRow:
    """The lease that a row of ``leases`` describes."""
    values = _fields(LeaseRow, row)
    values["state"] = LeaseState(values["state"])
    for name in _MONEY:
        values[name] = None if values[name] is None else Money.from_micros(values[name])
    values["tags"] = tuple(values["tags"].split("\n")) if values["tags"] else ()
    return LeaseRow(**values)


def lease_values(lease: LeaseRow) -> dict[str, Any]:
    """The columns of a new row of ``leases``."""
    values: dict[str, Any] = {name: getattr(lease, name) for name in LeaseRow.__slots__}
    values["state"] = str(lease.state)
    # Rates and reservations are rounded up: what is held must cover what can be billed.
    for name in _MONEY:
        values[name] = None if values[name] is None else values[name].micros_up
    values["tags"] = "\n".join(lease.tags)
    return values


@_checked
def job_from(row: Row) -> JobRow:
    """The job that a row of ``jobs`` describes."""
    values = _fields(JobRow, row)
    values["tags"] = tuple(values["tags"].split("\n")) if values["tags"] else ()
    return JobRow(**values)


@_checked
def event_from(row: Row) -> LedgerEvent:
    """The event that a row of ``events`` describes."""
    values = _fields(LedgerEvent, row)
    for name in ("source", "target"):
        values[name] = None if values[name] is None else LeaseState(values[name])
    return LedgerEvent(**values)


@_checked
def owner_from(row: Row) -> Owner:
    """The owner that a row of ``owners`` describes."""
    return Owner(**_fields(Owner, row))


def values_of(value: Cooldown | Experience) -> dict[str, Any]:
    """The columns of a row of ``cooldowns`` or ``experience``, its key first."""
    names = list(type(value).__slots__)
    return {
        name: str(given) if isinstance(given := getattr(value, name), StrEnum) else given
        for name in names
    }


@_checked
def cooldown_from(row: Row) -> Cooldown:
    """The cooldown that a row of ``cooldowns`` describes."""
    values = _fields(Cooldown, row)
    values["scope"] = Scope(values["scope"])
    values["kind"] = ErrorKind(values["kind"])
    return Cooldown(**values)


@_checked
def experience_from(row: Row) -> Experience:
    """What a row of ``experience`` says of a host."""
    return Experience(**_fields(Experience, row))
