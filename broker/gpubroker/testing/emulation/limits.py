"""How often an endpoint may be asked: pure bookkeeping over moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Thresholds:
    """A least time between two requests, for each endpoint and each identity.

    Attributes:
        seconds: by endpoint. An endpoint that is missing is never limited.
        factor: what they are multiplied with; 0 limits nothing.
    """

    seconds: Mapping[str, float]
    factor: float = 1.0
    _last: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    def threshold(self, endpoint: str) -> float:
        """Least seconds between two requests to an endpoint."""
        return self.seconds.get(endpoint, 0.0) * self.factor

    def wait(self, endpoint: str, identity: str, now: float) -> float:
        """Count a request; how many seconds too early it is. 0 lets it pass.

        A request that is too early does not push the next one back.
        """
        threshold = self.threshold(endpoint)
        last = self._last.get((endpoint, identity))
        if last is not None and now < last + threshold:
            return last + threshold - now
        if threshold:
            self._last[endpoint, identity] = now
        return 0.0


@dataclass(slots=True)
class DailyQuota:
    """So many of something per day that begins at midnight UTC.

    Attributes:
        limit: how many; ``None`` is no limit.
        used: how many were used on `day`.
        day: days since 1970.
    """

    limit: int | None = None
    used: int = 0
    day: int = 0

    def remaining(self, now: float) -> int | None:
        """How many are left; ``None`` where there is no limit."""
        self._turn(now)
        return None if self.limit is None else max(self.limit - self.used, 0)

    def use(self, amount: int, now: float) -> None:
        """Count some as used."""
        self._turn(now)
        self.used += amount

    def resets_at(self, now: float) -> int:
        """The next midnight, Unix seconds."""
        return (int(now // 86_400) + 1) * 86_400

    def _turn(self, now: float) -> None:
        day = int(now // 86_400)
        if day != self.day:
            self.day, self.used = day, 0
