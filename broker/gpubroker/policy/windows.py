"""Budget windows: a day of a named time zone as one half-open interval of Unix seconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def day_of(now: float, timezone: str) -> tuple[float, float]:
    """The day that `now` (Unix seconds) falls in: [its midnight, the next one).

    A day on which clocks change is 23 or 25 hours long.
    """
    # UTC must not need a zone database, which slim containers lack.
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    today = datetime.fromtimestamp(now, zone).date()

    def midnight(day: date) -> float:
        return datetime.combine(day, time(), zone).timestamp()

    return midnight(today), midnight(today + timedelta(days=1))
