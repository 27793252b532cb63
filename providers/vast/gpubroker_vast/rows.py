"""Single values out of JSON that a stranger wrote: the right type and finite, or ``None``."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

Row = Mapping[str, Any]

_LONGEST: Final = 1 << 16


def decimal(row: Row, name: str) -> Decimal | None:
    """A number, exactly as it was written; text that is one will do too."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return None
    try:
        exact = Decimal(value)
    except (InvalidOperation, ValueError):
        return None
    # Nothing that a vendor counts is larger, and larger ones cannot be calculated with.
    return exact if exact.is_finite() and -(10**15) < exact < 10**15 else None


def number(row: Row, name: str) -> float | None:
    """A number as a float: for amounts, never for money."""
    exact = decimal(row, name)
    return None if exact is None else float(exact)


def whole(row: Row, name: str) -> int | None:
    """A whole number."""
    exact = decimal(row, name)
    return int(exact) if exact is not None and exact == int(exact) else None


def text(row: Row, name: str) -> str:
    """Text without blanks around it; empty if there is none."""
    value = row.get(name)
    return value[:_LONGEST].strip() if isinstance(value, str) else ""


def flag(row: Row, name: str) -> bool | None:
    """True or false."""
    value = row.get(name)
    return value if isinstance(value, bool) else None


def identifier(row: Row, name: str) -> str | None:
    """An id of the vendor's, which is a positive whole number, as text."""
    found = whole(row, name)
    return str(found) if found is not None and found > 0 else None


def table(value: object) -> Row | None:
    """An object, if it is one."""
    return cast("Row", value) if isinstance(value, Mapping) else None


def entries(value: object) -> list[object] | None:
    """A list, if it is one."""
    return cast("list[object]", value) if isinstance(value, list) else None
