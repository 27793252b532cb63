"""How often an endpoint may be asked: pure bookkeeping over moments."""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class RateWindow:
    """So many requests in a window of time, which begins anew at each multiple of its length.

    Attributes:
        name: as answers call it. quota: how many requests. seconds: how long it is.
    """

    name: str
    quota: int
    seconds: int


@dataclass(slots=True)
class RateWindows:
    """Several windows at once, as in the draft of the ``RateLimit`` headers.

    Attributes:
        windows: the shortest first. used: requests so far, by window and its beginning.
    """

    windows: tuple[RateWindow, ...]
    used: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def count(self, now: float) -> RateWindow | None:
        """Count a request, unless a window is used up: that window then."""
        beginnings = {one.name: int(now // one.seconds) for one in self.windows}
        self.used = {at: n for at, n in self.used.items() if beginnings.get(at[0]) == at[1]}
        for one in self.windows:
            if self.remaining(one, now) <= 0:
                return one
        for at in beginnings.items():
            self.used[at] = self.used.get(at, 0) + 1
        return None

    def remaining(self, window: RateWindow, now: float) -> int:
        """How many requests are left in a window."""
        used = self.used.get((window.name, int(now // window.seconds)), 0)
        return max(window.quota - used, 0)

    def resets_in(self, window: RateWindow, now: float) -> int:
        """Whole seconds until a window begins anew."""
        return max(math.ceil(window.seconds - now % window.seconds), 1)

    def headers(self, now: float) -> dict[str, str]:
        """``RateLimit`` and ``RateLimit-Policy`` at a moment."""
        return {
            "RateLimit": ", ".join(
                f'"{one.name}";r={self.remaining(one, now)};t={self.resets_in(one, now)}'
                for one in self.windows
            ),
            "RateLimit-Policy": ", ".join(
                f'"{one.name}";q={one.quota};w={one.seconds}' for one in self.windows
            ),
        }
