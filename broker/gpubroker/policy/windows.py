"""Budget windows: days and months of a named time zone, as half-open intervals of Unix seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from gpubroker.errors import InvalidValue


def day_of(now: float, timezone: str) -> tuple[float, float]:
    """The day that `now` (Unix seconds) falls in: [its midnight, the next one).

    A day on which clocks change is 23 or 25 hours long.
    """
    return _window(now, timezone, lambda day: day, lambda day: day + timedelta(days=1))


def month_of(now: float, timezone: str) -> tuple[float, float]:
    """The month that `now` (Unix seconds) falls in: [its first midnight, that of the next one)."""
    return _window(now, timezone, lambda day: day.replace(day=1), _next_month)


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _window(
    now: float, timezone: str, first: Callable[[date], date], following: Callable[[date], date]
) -> tuple[float, float]:
    zone = _zone(timezone)
    start = first(datetime.fromtimestamp(now, zone).date())
    # Clocks that went back over midnight show a date whose end is past already.
    while now >= (end := midnight(following(start), timezone)):
        start = following(start)
    return midnight(start, timezone), end


def midnight(day: date, timezone: str) -> float:
    """When `day` begins, in Unix seconds: the first of two midnights, and the end of a gap."""
    return datetime.combine(day, time(), _zone(timezone)).timestamp()


def date_of(now: float, timezone: str) -> date:
    """The date of the day that `now` falls in, as `day_of` has it."""
    start, _ = day_of(now, timezone)
    return datetime.fromtimestamp(start, _zone(timezone)).date()


def _zone(timezone: str) -> tzinfo:
    # UTC must not need a zone database, which slim containers lack.
    return UTC if timezone == "UTC" else ZoneInfo(timezone)


def check_timezone(timezone: str, field: str = "budget.timezone") -> None:
    """Refuse a time zone that this system does not know.

    Args:
        field: the name to put in the error.

    Raises:
        InvalidValue: it is none, with the nearest name.
    """
    try:
        _zone(timezone)
    except (KeyError, ValueError, OSError):
        raise InvalidValue.unknown(
            field, timezone, available_timezones(), noun="time zone"
        ) from None
