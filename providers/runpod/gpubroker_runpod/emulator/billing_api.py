"""What pods were charged, in buckets of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_runpod.emulator.answers import invalid, problem
from gpubroker_runpod.emulator.world import World

_KINDS: Final = ("totalAmount", "gpuAmount", "cpuAmount", "diskAmount")
_SHORT: Final = "%Y-%m-%dT%H:%M:%SZ"


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


#: The beginning of the bucket that a moment is in, by its size.
_FLOORS: Final[dict[str, Callable[[datetime], datetime]]] = {
    "hour": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "day": _midnight,
    "week": lambda moment: _midnight(moment) - timedelta(days=moment.weekday()),
    "month": lambda moment: _midnight(moment).replace(day=1),
    "year": lambda moment: _midnight(moment).replace(month=1, day=1),
}
#: More than the longest bucket of a size, and less than two.
_STEPS: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=32),
    "year": timedelta(days=367),
}


class BillingApi:
    """The endpoint of the billing history of pods."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (Endpoint("billing", "GET", "/v2/billing/pods", self._pods),)

    def _pods(self, call: Call) -> Answer:
        query = call.query
        size = query.get("bucketSize", "day")
        if size not in _FLOORS:
            return invalid(f"bucketSize: value must be one of {', '.join(_FLOORS)}")
        if "lastN" in query and ("startTime" in query or "endTime" in query):
            return problem(400, "lastN cannot be combined with startTime or endTime")
        now = datetime.fromtimestamp(call.at, UTC)
        try:
            end = _moment(query.get("endTime"), now)
            start = _moment(query.get("startTime"), end - timedelta(days=30))
            last = int(query.get("lastN", "0"))
        except ValueError:
            return invalid("startTime, endTime or lastN is malformed")
        if start > end or last < 0 or ("lastN" in query and last == 0):
            return problem(400, "startTime must be before endTime, and lastN at least 1")
        buckets = list(_buckets(size, start, end, last))
        one = query.get("podId")
        records = [
            record
            for begin, finish in buckets
            for pod in self._world.lives.pods
            if one in (None, pod)
            for record in self._records(pod, begin, finish, call.at)
        ]
        window = {"startTime": _shown(buckets[0][0]), "endTime": _shown(buckets[-1][1])}
        totals = {kind: sum((r[kind] for r in records), Decimal(0)) for kind in _KINDS}
        return Answer.of(
            {
                "records": records,
                "metadata": {
                    "query": window | {"bucketSize": size, "podId": one},
                    "recordCount": len(records),
                    "uniquePodCount": len({record["podId"] for record in records}),
                    "totals": totals,
                },
            }
        )

    def _records(
        self, pod: str, start: datetime, end: datetime, now: float
    ) -> Iterator[dict[str, Any]]:
        """The record of a pod in a bucket, if it was charged anything there by now."""
        settled = min(end.timestamp(), now - self._world.behaviour.settling)
        if settled <= start.timestamp():
            return
        amounts = self._world.amounts(pod, start.timestamp(), settled)
        total = sum(amounts.values(), Decimal(0))
        if total:
            yield {
                "startTime": _shown(start),
                "endTime": _shown(end),
                "podId": pod,
                "totalAmount": total,
                "cpuAmount": 0,
                **amounts,
            }


def _moment(text: str | None, default: datetime) -> datetime:
    if text is None:
        return default
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)


def _buckets(
    size: str, start: datetime, end: datetime, last: int
) -> Iterator[tuple[datetime, datetime]]:
    """The buckets that cover a time, or the last ones up to its end."""
    floor, step = _FLOORS[size], _STEPS[size]
    begin = floor(end if last else start)
    for _ in range(last - 1):
        begin = floor(begin - timedelta(seconds=1))
    while True:
        following = floor(begin + step)
        yield begin, following
        begin = following
        if begin >= end:
            return


def _shown(moment: datetime) -> str:
    return moment.strftime(_SHORT)
