"""Single values out of JSON that a stranger wrote: the right type and finite, or ``None``.

A number is read from a `gpubroker.rest.Reply`, whose JSON has exact fractions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

Row = Mapping[str, Any]
"""An object in JSON."""

_LONGEST: Final = 1 << 16
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: What may be handed to a program as a host: no option, no path, no blank.
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,252})")


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
    """An id that is a positive whole number, as text; `text_identifier` reads any other."""
    found = whole(row, name)
    return str(found) if found is not None and found > 0 else None


def text_identifier(row: Row, name: str) -> str | None:
    """An id that is text, such as a UUID: letters, digits, - and _, safe to put into a path."""
    found = text(row, name)
    return found if _WORD.fullmatch(found) else None


def host(row: Row, name: str) -> str | None:
    """A host's name or address, which is safe to hand to a program."""
    found = text(row, name)
    return found if _HOST.fullmatch(found) else None


def port(row: Row, name: str) -> int | None:
    """A TCP port."""
    found = whole(row, name)
    return found if found is not None and 0 < found < 65536 else None


def moment(row: Row, name: str) -> float | None:
    """A moment of RFC 3339 as Unix time; one without a time zone is in UTC."""
    try:
        found = datetime.fromisoformat(text(row, name))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return None


def table(value: object) -> Row | None:
    """An object, if it is one."""
    return cast("Row", value) if isinstance(value, Mapping) else None


def entries(value: object) -> list[object] | None:
    """A list, if it is one."""
    return cast("list[object]", value) if isinstance(value, list) else None
