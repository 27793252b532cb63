"""The traffic of ``gpubroker plan``: a usage in words and options, or a trace from a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from gpubroker.cli.durations import shown
from gpubroker.errors import InvalidValue
from gpubroker.model.durations import parse_seconds
from gpubroker.policy.replay import Arrival
from gpubroker.policy.schedule import Schedule, Window
from gpubroker.policy.usage import parse_hours, parse_usage
from gpubroker.policy.windows import check_timezone


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the options say."""

    usage: str | None
    per_day: float | None
    seconds: str | None
    hours: str | None
    days: str | None
    trace: Path | None
    model: str | None
    timezone: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests, and the span of time that they stand for.

    Attributes:
        title: what they are, for people.
        schedule: the hours in which they come, where that is known.
    """

    title: str
    arrivals: Sequence[Arrival]
    since: float
    until: float
    timezone: str
    schedule: Schedule | None


def traffic(said: Said, timezone: str) -> Traffic:
    """The traffic that was asked for; `timezone` if none was said.

    Raises:
        InvalidValue: something makes no sense.
        OSError: there is no such trace.
    """
    zone = said.timezone or timezone
    check_timezone(zone, "timezone")
    if said.trace is None:
        if said.model is not None:
            raise InvalidValue("model", said.model, "only a trace has models")
        return _from_usage(said, zone)
    for name in ("usage", "per_day", "hours", "days"):
        if getattr(said, name) is not None:
            raise InvalidValue(name, getattr(said, name), "a trace says that by itself")
    return _from_trace(said.trace, said, zone)


def _from_usage(said: Said, zone: str) -> Traffic:
    usage = parse_usage(said.usage or "", zone)
    if said.per_day is not None:
        usage = replace(usage, per_day=said.per_day)
    if said.seconds is not None:
        usage = replace(usage, seconds=parse_seconds("seconds", said.seconds))
    hours = (usage.when.opens, usage.when.closes) if said.hours is None else parse_hours(said.hours)
    usage = replace(usage, when=Window(said.days or usage.when.days, *hours))
    since, until = usage.span
    return Traffic(
        title=f"{usage.per_day:g} a day, {usage.seconds:g} s each, {usage.when} ({zone})",
        arrivals=list(usage.arrivals()),
        since=since,
        until=until,
        timezone=zone,
        schedule=usage.schedule,
    )


def _from_trace(path: Path, said: Said, zone: str) -> Traffic:
    usual = 60.0 if said.seconds is None else parse_seconds("seconds", said.seconds)
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            names = rows.fieldnames
            if not names:
                raise InvalidValue("trace", str(path), "is empty")
            if "arrival" not in names:
                first = ",".join(names)[:80]
                problem = (
                    f"its first line must name a column arrival, with commas between: {first!r}"
                )
                raise InvalidValue("trace", str(path), problem)
            arrivals = sorted(
                _arrival(row, f"{path}:{rows.line_num}", usual, zone)
                for row in rows
                if said.model is None or row.get("model") == said.model
            )
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidValue("trace", str(path), f"is no CSV file: {error}") from None
    if not arrivals:
        which = "" if said.model is None else f" for the model {said.model!r}"
        raise InvalidValue("trace", str(path), f"there are no requests{which} in it")
    since, until = arrivals[0].at, max(each.at + each.seconds for each in arrivals)
    return Traffic(
        title=f"{path.name}, {shown(until - since)}",
        arrivals=arrivals,
        since=since,
        until=max(until, since + 1.0),
        timezone=zone,
        schedule=None,
    )


def _arrival(row: dict[str, str | None], where: str, usual: float, zone: str) -> Arrival:
    at, seconds = (row.get("arrival") or "").strip(), (row.get("seconds") or "").strip()
    return Arrival(
        _moment(at, where, zone), parse_seconds(where, seconds, none=True) if seconds else usual
    )


def _moment(text: str, where: str, zone: str) -> float:
    try:
        return parse_seconds(where, text, none=True)
    except InvalidValue:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(where, text, "an arrival must be a date and time, or seconds") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
    return moment.timestamp()
