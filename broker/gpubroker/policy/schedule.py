"""When a pool may hold warm machines: windows of the week and cron expressions, in a time zone.

::

    mon-fri 09:00-18:00             by the clock on the wall
    sat,sun 22:00-02:00             past midnight
    0 9 * * mon-fri for 9h          a cron expression, and how long each of its windows lasts

A window opens when the clock first shows its time that day, and closes when it first shows the
other one after that. So each opens once a day, where clocks go back, too; where they jump over its
time, it opens at the jump.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.policy.windows import check_timezone

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = timedelta(days=1)
_SPAN: Final = re.compile(r"(\S+)\s+(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d)")
_CRON: Final = re.compile(r"(.+?)\s+for\s+(\S+)")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d\d)", re.ASCII)
#: How far a change is looked for while a schedule is open, in seconds.
_AHEAD: Final = 2 * 86_400.0

Interval = tuple[float, float]


class Opening(Protocol):
    """Something that opens and closes again and again."""

    def intervals(self, now: float, zone: tzinfo) -> Iterator[Interval]:
        """Those that end after `now` (Unix seconds), in order."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """A window on some days of the week.

    Attributes:
        days: such as ``mon-fri``, ``sat,sun`` or ``daily``.
        opens: a time such as ``09:00``.
        closes: the same; one that is not later is that of the next day, and ``24:00`` midnight.

    Raises:
        InvalidValue: there are no such days or times, or it would close as it opens.
    """

    days: str
    opens: str
    closes: str

    def __post_init__(self) -> None:
        _weekdays(self.days)
        if _minutes(self.opens) == 24 * 60:
            raise InvalidValue("schedule", self.opens, "a window must open before midnight")
        if _minutes(self.opens) == _minutes(self.closes):
            raise InvalidValue(
                "schedule",
                f"{self.opens}-{self.closes}",
                "opens and closes at one time; the whole day is 00:00-24:00",
            )

    def intervals(self, now: float, zone: tzinfo) -> Iterator[Interval]:
        """Those that end after `now`, in order, without end."""
        days, opens, closes = _weekdays(self.days), _minutes(self.opens), _minutes(self.closes)
        if closes < opens:
            closes += 24 * 60
        day = datetime.fromtimestamp(now, zone).date() - 2 * _DAY
        while True:
            if day.weekday() in days:
                start, end = _moment(day, opens, zone), _moment(day, closes, zone)
                if end > now and end > start:
                    yield start, end
            day += _DAY

    def __str__(self) -> str:
        return f"{self.days} {self.opens}-{self.closes}"


@dataclass(frozen=True, slots=True)
class CronWindow:
    """A window that opens whenever a cron expression says so. Needs ``gpubroker[cron]``.

    Attributes:
        expression: five fields, as in a crontab. At clock changes it does what Debian's cron does.
        seconds: how long each window lasts.

    Raises:
        InvalidValue: it is no cron expression, or the library for it is not installed.
    """

    expression: str
    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 366 * 86_400:
            raise InvalidValue("schedule", self.seconds, "must last for some time, a year at most")
        _cron(self.expression, datetime(2000, 1, 1, tzinfo=UTC))

    def intervals(self, now: float, zone: tzinfo) -> Iterator[Interval]:
        """Those that end after `now`, in order, as far as the next 50 years have any."""
        since = datetime.fromtimestamp(now - self.seconds, zone)
        for opening in _cron(self.expression, since):
            start = opening.timestamp()
            if start + self.seconds > now:
                yield start, start + self.seconds

    def __str__(self) -> str:
        return f"{self.expression} for {self.seconds:g}s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When machines may be warm. Outside, none are.

    Attributes:
        windows: when it is open: in any of them.
        timezone: whose clock the windows mean.
        lead: seconds before a window at which the first machine is started; ``None`` for as long
            as a cold start is expected to take.

    Raises:
        InvalidValue: there is no window, or there is no such time zone.
    """

    windows: tuple[Window | CronWindow, ...]
    timezone: str = "UTC"
    lead: float | None = None

    def __post_init__(self) -> None:
        if not self.windows:
            raise InvalidValue("schedule", "", "must have a window")
        check_timezone(self.timezone, "schedule.timezone")
        if self.lead is not None and not 0 <= self.lead < math.inf:
            raise InvalidValue("schedule.lead", self.lead, "must be a number of seconds, 0 or more")

    @classmethod
    def parse(
        cls, text: str | Iterable[str], timezone: str = "UTC", lead: float | None = None
    ) -> Schedule:
        """A schedule from text: windows as the module shows them, with ``;`` between them.

        Raises:
            InvalidValue: a window makes no sense, or there is no such time zone.
        """
        texts = text.split(";") if isinstance(text, str) else text
        return cls(tuple(parse_window(each) for each in texts), timezone, lead)

    def open_at(self, now: float) -> bool:
        """Whether a window is open at `now`, in Unix seconds."""
        return any(next(found, (math.inf, 0))[0] <= now for found in self._found(now))

    def next_change(self, now: float) -> float:
        """The next moment at which it may open or close: nothing changes before that.

        Infinite if it never will. While it is open, no more than two days ahead.
        """
        found = heapq.merge(*self._found(now))
        start, end = next(found, (math.inf, math.inf))
        if start > now:
            return start
        for start, later in found:
            if start > end or end > now + _AHEAD:
                break
            end = max(end, later)
        return min(end, now + _AHEAD)

    def warm_wanted(self, now: float, cold_start: float) -> bool:
        """Whether machines may be warm, or start so as to be warm once a window is open.

        Args:
            now: Unix seconds.
            cold_start: seconds that a machine is expected to take until it is ready.
        """
        lead = cold_start if self.lead is None else self.lead
        return self.open_at(now) or self.next_change(now) <= now + lead

    def _found(self, now: float) -> list[Iterator[Interval]]:
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        return [window.intervals(now, zone) for window in self.windows]

    def __str__(self) -> str:
        return "; ".join(map(str, self.windows))


def parse_window(text: str) -> Window | CronWindow:
    """A window from ``mon-fri 09:00-18:00`` or ``0 9 * * mon-fri for 9h``.

    Raises:
        InvalidValue: it is neither.
    """
    words = text.strip().lower()
    if found := _SPAN.fullmatch(words):
        return Window(*found.groups())
    if found := _CRON.fullmatch(words):
        return CronWindow(found[1], parse_seconds("schedule", found[2]))
    raise InvalidValue(
        "schedule", text, "must be a window such as 'mon-fri 09:00-18:00' or '0 9 * * 1-5 for 9h'"
    )


def _weekdays(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in _DAYS:
                raise InvalidValue.unknown("schedule", name, [*_DAYS, "daily"], noun="day")
        start = _DAYS.index(first)
        length = (_DAYS.index(last) - start) % 7 if dash else 0
        days.update((start + n) % 7 for n in range(length + 1))
    return frozenset(days)


def _minutes(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    minutes = -1 if found is None else int(found[1]) * 60 + int(found[2])
    if found is None or int(found[2]) > 59 or minutes > 24 * 60:
        raise InvalidValue("schedule", text, "must be a time from 00:00 to 24:00")
    return minutes


def _moment(day: date, minutes: int, zone: tzinfo) -> float:
    """When the clock first shows so many minutes past the midnight of `day`, or jumps over it."""
    days, minute = divmod(minutes, 24 * 60)
    shown = datetime.combine(day + days * _DAY, time(*divmod(minute, 60)), zone)
    before, after = shown.replace(fold=1).timestamp(), shown.timestamp()
    if before >= after:
        return after
    # The clock skips it: of the two readings, the earlier is before the jump, the other after it.
    offset = datetime.fromtimestamp(after, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def _cron(expression: str, since: datetime) -> Iterator[datetime]:
    if len(expression.split()) != 5:
        raise InvalidValue("schedule", expression, "a cron expression has five fields")
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise InvalidValue(
            "schedule", expression, "cron expressions need gpubroker[cron]"
        ) from None
    try:
        return CronSim(expression.upper(), since)
    except CronSimError as error:
        raise InvalidValue("schedule", expression, f"is no cron expression: {error}") from None
