"""How a pool is used: said in words, as so many requests a day within some hours."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.policy.replay import Arrival
from gpubroker.policy.schedule import Schedule, Window

#: Four weeks: no weekday counts more than another.
DAYS: Final = 28
_MOST: Final = 100_000
_PER_DAY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:a|per|/)\s*day")
_EACH: Final = re.compile(r"(\d\S*(?:\s*[smhd])?)\s*each")
_HOURS: Final = re.compile(
    r"(?:from\s+)?(\d{1,2})(?::(\d\d))?\s*(?:h\s*)?(?:to|-)\s*(\d{1,2})(?::(\d\d))?\s*h?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """So many requests on each day, at moments drawn evenly from some hours.

    Attributes:
        per_day: requests on each of the days.
        seconds: for how long each needs a machine.
        when: the hours, and on which days.
        timezone: whose clock they mean.

    Raises:
        InvalidValue: there are no requests, too many, or they take no time.
    """

    per_day: float = 100.0
    seconds: float = 60.0
    when: Window = field(default_factory=lambda: Window("daily", "00:00", "24:00"))
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not 0 < self.per_day <= _MOST / DAYS:
            raise InvalidValue(
                "per_day", self.per_day, f"must be above 0, and {_MOST // DAYS} at most"
            )
        if not 0 < self.seconds < math.inf:
            raise InvalidValue("seconds", self.seconds, "must be above 0")

    @property
    def schedule(self) -> Schedule:
        """The hours, as those in which machines may be warm."""
        return Schedule((self.when,), self.timezone)

    @property
    def span(self) -> tuple[float, float]:
        """The four weeks that `arrivals` are in, in Unix seconds: from a Monday, in winter."""
        since = datetime(2026, 1, 5, tzinfo=self._zone).timestamp()
        return since, since + DAYS * 86_400

    @property
    def _zone(self) -> tzinfo:
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)

    def arrivals(self, seed: int = 0) -> Iterator[Arrival]:
        """Four weeks of requests: for one seed always the same."""
        source, owed = random.Random(seed), 0.0  # noqa: S311 - nothing secret
        since, until = self.span
        for opens, closes in self.when.intervals(since, self._zone):
            if closes > until:
                return
            owed += self.per_day
            moments = sorted(source.uniform(opens, closes) for _ in range(int(owed)))
            owed -= len(moments)
            yield from (Arrival(at, self.seconds) for at in moments)


def parse_usage(text: str, timezone: str = "UTC") -> Usage:
    """Usage from text such as ``100 a day, 60 s each, 9 to 18 h, mon-fri``.

    What is left out is 100 a day, 60 s each, at any hour of any day.

    Raises:
        InvalidValue: a part is none of these, or makes no sense.
    """
    per_day, seconds, hours, days = 100.0, 60.0, ("00:00", "24:00"), "daily"
    for part in filter(None, (part.strip().lower() for part in text.split(", "))):
        if found := _PER_DAY.fullmatch(part):
            per_day = float(found[1])
        elif found := _EACH.fullmatch(part):
            seconds = parse_seconds("usage", found[1])
        elif _HOURS.fullmatch(part):
            hours = parse_hours(part)
        elif re.fullmatch(r"[a-z]+(?:[-,][a-z]+)*", part):
            days = part
        else:
            raise InvalidValue(
                "usage", part, "must be such as '100 a day, 60 s each, 9 to 18 h, mon-fri'"
            )
    return Usage(per_day=per_day, seconds=seconds, when=Window(days, *hours), timezone=timezone)


def parse_hours(text: str) -> tuple[str, str]:
    """Two times of day from ``9-18``, ``9 to 18 h`` or ``09:30-18:00``.

    Raises:
        InvalidValue: they are not.
    """
    found = _HOURS.fullmatch(text.strip().lower())
    if not found:
        raise InvalidValue("hours", text, "must be such as 9-18 or 09:30-18:00")
    return f"{int(found[1]):02}:{found[2] or '00'}", f"{int(found[3]):02}:{found[4] or '00'}"
